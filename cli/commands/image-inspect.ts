import { inspectImage } from '#image/node/inspect'
import type { CommandSpec } from '../command.ts'
import { REGISTRY_OPTIONS, withRegistry } from '../registries.ts'

export const imageInspect: CommandSpec = {
  path: 'image inspect',
  summary:
    'Prints what a registry has under a reference: the digest to pin, platform, command, user, layers, signatures.',
  operands: 'REFERENCE',
  minOperands: 1,
  maxOperands: 1,
  options: REGISTRY_OPTIONS,
  examples: ['caisson image inspect registry.example/shop/web:1 --ca ca.pem'],
  run: (invocation) =>
    withRegistry(invocation, async (registry) => {
      const image = await inspectImage({ reference: invocation.operand(0), registry })
      const { config } = image
      const lines = [
        image.reference,
        `manifest    ${image.manifestDigest}`,
        `signatures  ${image.signatures} (not judged)`,
        `config      ${JSON.stringify(config)}`,
        ...image.layers.map((layer) => `layer       ${layer.digest}  ${layer.size} bytes  ${layer.mediaType}`),
      ]
      invocation.out.result(image, lines.join('\n'))
      return 0
    }),
}
