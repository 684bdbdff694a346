import { verifyImage } from '#image/node/verify'
import { parseSignaturePolicy } from '#image/policy/parse'
import type { CommandSpec } from '../command.ts'
import { readUserFile } from '../files.ts'
import { REGISTRY_OPTIONS, withRegistry } from '../registries.ts'

export const imageVerify: CommandSpec = {
  path: 'image verify',
  summary: 'Judges an image by a signature policy (containers-policy.json), exactly as the guest does before it pulls.',
  operands: 'REFERENCE',
  minOperands: 1,
  maxOperands: 1,
  options: {
    ...REGISTRY_OPTIONS,
    policy: { type: 'string', placeholder: 'FILE', help: 'signature policy (containers-policy.json)' },
  },
  examples: ['caisson image verify registry.example/shop/web:1 --policy policy.json --ca ca.pem'],
  run: (invocation) =>
    withRegistry(invocation, async (registry) => {
      const policy = parseSignaturePolicy(readUserFile(invocation.required('policy'), 'policy'))
      const verified = await verifyImage({
        reference: invocation.operand(0),
        registry,
        policy,
        resolveKey: async (path) => readUserFile(path, 'public key').toString('utf8'),
      })
      invocation.out.result(verified, `accepted ${verified.manifestDigest} by ${verified.place}`)
      return 0
    }),
}
