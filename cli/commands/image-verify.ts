import { existsSync } from 'node:fs'
import { lookasideFiles, readRegistriesD } from '#image/node/lookaside-files'
import { type VerifiedImage, verifyFolder, verifyImage } from '#image/node/verify'
import { parseSignaturePolicy } from '#image/policy/parse'
import { keyName } from '#image/signature/public-key'
import { nodeCrypto } from '#protocol/node/crypto'
import { isDigest } from '#protocol/oci/digest'
import type { CommandSpec, Invocation } from '../command.ts'
import { readUserFile } from '../files.ts'
import { REGISTRY_OPTIONS, withRegistry } from '../registries.ts'

export const imageVerify: CommandSpec = {
  path: 'image verify',
  summary:
    'Judges an image by a signature policy (containers-policy.json), exactly as the guest does before it pulls. ' +
    'The image is in a registry, or in a folder: an OCI layout, or what `skopeo copy … dir:FOLDER` writes.',
  operands: 'REFERENCE|DIR|FILE',
  minOperands: 1,
  maxOperands: 1,
  options: {
    ...REGISTRY_OPTIONS,
    policy: { type: 'string', placeholder: 'FILE', help: 'signature policy (containers-policy.json)' },
    bundle: { type: 'string', placeholder: 'FILE', help: 'judge this sigstore bundle about a file or digest instead' },
    'trusted-root': { type: 'string', placeholder: 'FILE', help: 'with --bundle: trusted_root.json to judge it by' },
    key: { type: 'string', placeholder: 'FILE', help: 'with --bundle: public key (PEM) that must have signed' },
    identity: { type: 'string', placeholder: 'NAME', help: 'with --bundle: whom the certificate must name' },
    issuer: { type: 'string', placeholder: 'URL', help: 'with --bundle: who must have vouched for that identity' },
    'registries-d': {
      type: 'string',
      placeholder: 'DIR',
      help: 'folder of YAML files that say where OpenPGP signatures are kept (containers-registries.d)',
    },
    as: { type: 'string', placeholder: 'REFERENCE', help: 'name under which a folder’s image is judged' },
  },
  examples: [
    'caisson image verify registry.example/shop/web:1 --policy policy.json --ca ca.pem',
    'caisson image verify ./web --as registry.example/shop/web:1 --policy policy.json',
    'caisson image verify --bundle app.sigstore.json --trusted-root root.json --identity me@a.example --issuer https://login.example app',
  ],
  run: async (invocation) => {
    const bundle = invocation.string('bundle')
    if (bundle !== undefined) return await verifyBundle(invocation, bundle)
    const named = /^(?:docker:\/\/|(dir|oci):)?(.*)$/s.exec(invocation.operand(0))
    const [, transport, operand = ''] = named ?? []
    const options = {
      policy: parseSignaturePolicy(readUserFile(invocation.required('policy'), 'policy')),
      resolveKey: async (path: string) => new Uint8Array(readUserFile(path, 'key of the policy')),
    }
    if (transport !== undefined || existsSync(operand)) {
      report(invocation, await verifyFolder({ ...options, folder: operand, reference: invocation.string('as') }))
      return 0
    }
    const folder = invocation.string('registries-d')
    const config = folder === undefined ? undefined : readRegistriesD(folder)
    return await withRegistry(invocation, async (registry, http) => {
      const lookaside = config === undefined ? {} : { lookaside: lookasideFiles(config, http) }
      report(invocation, await verifyImage({ ...options, reference: operand, registry, ...lookaside }))
      return 0
    })
  },
}

async function verifyBundle(invocation: Invocation, bundlePath: string): Promise<number> {
  const { requireIdentity, verifyArtifact } = await import('#image/node/verify-artifact')
  const optional = (name: string): Uint8Array | undefined => {
    const path = invocation.string(name)
    return path === undefined ? undefined : readUserFile(path, name)
  }
  const operand = invocation.operand(0)
  const [key, trustedRoot] = [optional('key'), optional('trusted-root')]
  if (key === undefined && trustedRoot === undefined) invocation.required('trusted-root')
  const verified = verifyArtifact({
    artifact: isDigest(operand) ? operand : readUserFile(operand, 'artifact'),
    bundle: readUserFile(bundlePath, 'bundle'),
    trustedRoot,
    key,
  })
  if (key === undefined) {
    requireIdentity(verified, { issuer: invocation.required('issuer'), subject: invocation.required('identity') })
  }
  const { signer, statement } = verified
  const signedBy =
    signer.kind === 'key' ? keyName(nodeCrypto, signer.key) : `${signer.subjects.join(', ')} of ${signer.issuer}`
  const result = { signedBy, predicateType: statement?.predicateType }
  invocation.out.result(result, `accepted ${operand}\nsigned by ${signedBy}`)
  return 0
}

function report({ out }: Invocation, verified: VerifiedImage): void {
  const { manifestDigest, place, requirements, signers } = verified
  const lines = [
    `accepted ${manifestDigest} by ${place}: ${requirements.join(', ')}`,
    ...signers.map((signer) => `signed by ${signer}`),
  ]
  out.result(verified, lines.join('\n'))
}
