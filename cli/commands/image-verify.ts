import { existsSync } from 'node:fs'
import { type VerifiedImage, verifyFolder, verifyImage } from '#image/node/verify'
import { parseSignaturePolicy } from '#image/policy/parse'
import type { CommandSpec, Invocation } from '../command.ts'
import { readUserFile } from '../files.ts'
import { REGISTRY_OPTIONS, withRegistry } from '../registries.ts'

export const imageVerify: CommandSpec = {
  path: 'image verify',
  summary:
    'Judges an image by a signature policy (containers-policy.json), exactly as the guest does before it pulls. ' +
    'The image is in a registry, or in a folder: an OCI layout, or what `skopeo copy … dir:FOLDER` writes.',
  operands: 'REFERENCE|DIR',
  minOperands: 1,
  maxOperands: 1,
  options: {
    ...REGISTRY_OPTIONS,
    policy: { type: 'string', placeholder: 'FILE', help: 'signature policy (containers-policy.json)' },
    as: { type: 'string', placeholder: 'REFERENCE', help: 'name under which a folder’s image is judged' },
  },
  examples: [
    'caisson image verify registry.example/shop/web:1 --policy policy.json --ca ca.pem',
    'caisson image verify ./web --as registry.example/shop/web:1 --policy policy.json',
  ],
  run: async (invocation) => {
    const operand = invocation.operand(0).replace(/^(?:dir|oci):/, '')
    const options = {
      policy: parseSignaturePolicy(readUserFile(invocation.required('policy'), 'policy')),
      resolveKey: async (path: string) => new Uint8Array(readUserFile(path, 'key of the policy')),
    }
    if (operand !== invocation.operand(0) || existsSync(operand)) {
      report(invocation, await verifyFolder({ ...options, folder: operand, reference: invocation.string('as') }))
      return 0
    }
    return await withRegistry(invocation, async (registry) => {
      report(invocation, await verifyImage({ ...options, reference: operand, registry }))
      return 0
    })
  },
}

function report({ out }: Invocation, verified: VerifiedImage): void {
  const { manifestDigest, place, requirements, signers } = verified
  const lines = [
    `accepted ${manifestDigest} by ${place}: ${requirements.join(', ')}`,
    ...signers.map((signer) => `signed by ${signer}`),
  ]
  out.result(verified, lines.join('\n'))
}
