import { signImage } from '#image/node/sign'
import type { CommandSpec } from '../command.ts'
import { readUserFile } from '../files.ts'
import { REGISTRY_OPTIONS, withRegistry } from '../registries.ts'

export const imageSign: CommandSpec = {
  path: 'image sign',
  summary: 'Signs an image in cosign’s format (a `.sig` tag beside it). Name it by digest: a tag may have moved.',
  operands: 'REFERENCE',
  minOperands: 1,
  maxOperands: 1,
  options: { ...REGISTRY_OPTIONS, key: { type: 'string', placeholder: 'FILE', help: 'ECDSA P-256 private key (PEM)' } },
  examples: ['caisson image sign --key cosign.key registry.example/shop/web@sha256:<digest> --ca ca.pem'],
  run: (invocation) =>
    withRegistry(invocation, async (registry) => {
      const privatePem = readUserFile(invocation.required('key'), 'signing key').toString('utf8')
      const signed = await signImage({ reference: invocation.operand(0), registry, privatePem })
      invocation.out.result(signed, `signed ${signed.reference} (${signed.signatureTag})`)
      return 0
    }),
}
