/** The signers of a container's rule, as the image engine judges them. */
import type { RequiredSignature, SignerRequirement } from '#image/policy/evaluate'
import type { ConfiguredBytes } from '#image/policy/policy'
import type { SignerRule } from '#policies/image-rule'
import type { RequiredSigners } from './image-source.ts'

/** Of the statement with which cosign 3 signs an image. */
const COSIGN_SIGNATURE = 'https://sigstore.dev/cosign/sign/v1'

/** @param bundles whether sigstore bundles can be judged here; they come last, since their judge has to be loaded */
export function requiredSignature({ place, signers }: RequiredSigners, bundles: boolean): RequiredSignature {
  const keys = signers.flatMap((signer) => keyOf(signer) ?? [])
  const byKeys: SignerRequirement = {
    type: 'sigstoreSigned',
    by: { kind: 'keys', keys },
    rekor: [],
    // The version is the host's choice, the repository is not.
    identity: { type: 'matchRepository' },
  }
  const identities = signers.filter((signer) => signer.kind === 'identity')
  const byBundles: readonly SignerRequirement[] = [
    ...(keys.length > 0 && bundles ? [bundle({ keys })] : []),
    ...identities.map(({ issuer, subject, trustedRoot }) =>
      bundle({ identities: [{ issuer, subject, subjectPrefix: undefined }], trustedRoot: resource(trustedRoot) }),
    ),
  ]
  return { place, anyOf: [...(keys.length > 0 ? [byKeys] : []), ...byBundles] }
}

type Bundle = Extract<SignerRequirement, { type: 'caissonBundle' }>

function bundle(trust: Partial<Pick<Bundle, 'keys' | 'identities' | 'trustedRoot'>>): Bundle {
  return {
    type: 'caissonBundle',
    keys: [],
    identities: [],
    trustedRoot: undefined,
    predicateTypes: [COSIGN_SIGNATURE],
    builders: [],
    sources: [],
    ...trust,
  }
}

function keyOf(signer: SignerRule): ConfiguredBytes | undefined {
  if (signer.kind === 'key') return resource(signer.resource)
  if (signer.kind === 'key-data') return { kind: 'inline', bytes: new TextEncoder().encode(signer.pem) }
  return undefined
}

function resource(path: string): ConfiguredBytes {
  return { kind: 'path', path: `kbs:///${path}` }
}
