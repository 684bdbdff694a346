import { generateSigningKey } from '#image/node/sign'
import type { CommandSpec } from '../command.ts'
import { createUserFiles } from '../files.ts'

export const imageKeygen: CommandSpec = {
  path: 'image keygen',
  summary: 'Makes an ECDSA P-256 key pair for signing images: PREFIX.key (keep it secret) and PREFIX.pub.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    output: { type: 'string', short: 'o', placeholder: 'PREFIX', help: 'prefix of the two files', default: 'cosign' },
  },
  examples: ['caisson image keygen --output cosign'],
  run: async (invocation) => {
    const prefix = invocation.required('output')
    const [privatePath, publicPath] = [`${prefix}.key`, `${prefix}.pub`]
    const pair = generateSigningKey()
    createUserFiles(
      [
        { path: privatePath, bytes: pair.privatePem, mode: 0o600 },
        { path: publicPath, bytes: pair.publicPem, mode: 0o644 },
      ],
      'A signing key is never overwritten: choose another prefix or move the old key away.',
    )
    invocation.out.result({ privateKey: privatePath, publicKey: publicPath }, `${privatePath}\n${publicPath}`)
    return 0
  },
}
