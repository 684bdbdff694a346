import { existsSync } from 'node:fs'
import { generateSigningKey } from '#image/node/sign'
import { UsageError } from '#protocol/errors'
import type { CommandSpec } from '../command.ts'
import { writeUserFile } from '../files.ts'

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
    for (const path of [privatePath, publicPath]) {
      if (!existsSync(path)) continue
      throw new UsageError('ERR_FILE_EXISTS', `${JSON.stringify(path)} exists already`, {
        hint: 'A signing key is never overwritten: choose another prefix or move the old key away.',
      })
    }
    const pair = generateSigningKey()
    writeUserFile(privatePath, pair.privatePem, 0o600)
    writeUserFile(publicPath, pair.publicPem)
    invocation.out.result({ privateKey: privatePath, publicKey: publicPath }, `${privatePath}\n${publicPath}`)
    return 0
  },
}
