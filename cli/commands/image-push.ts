import { pushImage } from '#image/node/push'
import type { CommandSpec } from '../command.ts'
import { REGISTRY_OPTIONS, withRegistry } from '../registries.ts'

export const imagePush: CommandSpec = {
  path: 'image push',
  summary: 'Pushes an OCI image layout folder to a registry and prints the digest that a policy pins.',
  operands: 'DIR REFERENCE',
  minOperands: 2,
  maxOperands: 2,
  options: REGISTRY_OPTIONS,
  examples: ['caisson image push ./nginx registry.example/shop/web:1 --ca ca.pem'],
  run: (invocation) =>
    withRegistry(invocation, async (registry) => {
      const [layout = '', reference = ''] = invocation.operands
      const pushed = await pushImage({
        layout,
        reference,
        registry,
        onProgress: ({ digest, bytes, sent }) =>
          invocation.out.progress(`${digest} ${bytes} bytes ${sent ? 'sent' : 'already there'}`, {
            digest,
            bytes,
            sent,
          }),
      })
      invocation.out.result(pushed, pushed.reference)
      return 0
    }),
}
