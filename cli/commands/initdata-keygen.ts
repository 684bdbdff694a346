import { exportJWK, generateKeyPair } from 'jose'
import { parseTenantIdentity, TENANT_KEY_ALGORITHM } from '#protocol/tenant-key'
import type { CommandSpec } from '../command.ts'
import { createUserFiles } from '../files.ts'

export const initdataKeygen: CommandSpec = {
  path: 'initdata keygen',
  summary:
    'Makes the key pair for reasons of refusals: PREFIX.jwk (keep it secret; for `explain`) and PREFIX.pub.jwk (for\n`initdata create --tenant-key`).',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    output: { type: 'string', short: 'o', placeholder: 'PREFIX', help: 'prefix of the two files', default: 'tenant' },
  },
  examples: ['caisson initdata keygen --output tenant'],
  run: async (invocation) => {
    const prefix = invocation.required('output')
    const [privatePath, publicPath] = [`${prefix}.jwk`, `${prefix}.pub.jwk`]
    const pair = await generateKeyPair(TENANT_KEY_ALGORITHM, { crv: 'P-256', extractable: true })
    const { kty, crv, x, y, d } = await exportJWK(pair.privateKey)
    const publicJwk = { kty, crv, alg: TENANT_KEY_ALGORITHM, x, y }
    const privateText = JSON.stringify({ ...publicJwk, d })
    parseTenantIdentity(privateText) // what we write, we must be able to read
    createUserFiles(
      [
        { path: privatePath, bytes: `${privateText}\n`, mode: 0o600 },
        { path: publicPath, bytes: `${JSON.stringify(publicJwk)}\n`, mode: 0o644 },
      ],
      'A key is never overwritten: choose another prefix or move the old key away.',
    )
    invocation.out.result({ privateKey: privatePath, publicKey: publicPath }, `${privatePath}\n${publicPath}`)
    return 0
  },
}
