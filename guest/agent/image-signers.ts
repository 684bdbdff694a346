/** The signers of a container's rule, as the image engine judges them. */
import type { RequiredSignature } from '#image/policy/evaluate'
import type { CaissonBundle, ConfiguredBytes, SigstoreSigned } from '#image/policy/policy'
import { COSIGN_SIGNATURE } from '#image/signature/found'
import type { SignerRule } from '#policies/image-rule'
import type { RequiredSigners } from './image-source.ts'

/**
 * One requirement for each signer and way to sign, so that one whose key cannot be had leaves the others their say.
 *
 * @param bundles whether sigstore bundles can be judged here; they come last, since their judge has to be loaded
 */
export function requiredSignature({ place, signers }: RequiredSigners, bundles: boolean): RequiredSignature {
  const placed = signers.map((signer, index) => ({ place: `${place}[${index}]`, signer, key: keyOf(signer) }))
  const byKeys = placed.flatMap(({ place: own, key }) => {
    return key === undefined ? [] : [{ place: own, requirement: byKey(key) }]
  })
  const byBundles = placed.flatMap(({ place: own, signer, key }) => {
    if (key !== undefined) return bundles ? [{ place: own, requirement: bundle({ keys: [key] }) }] : []
    if (signer.kind !== 'identity') return []
    const { issuer, subject, trustedRoot } = signer
    const identities = [{ issuer, subject, subjectPrefix: undefined }]
    return [{ place: own, requirement: bundle({ identities, trustedRoot: resource(trustedRoot) }) }]
  })
  return { place, anyOf: [...byKeys, ...byBundles] }
}

function byKey(key: ConfiguredBytes): SigstoreSigned {
  // The version is the host's choice, the repository is not.
  return {
    type: 'sigstoreSigned',
    by: { kind: 'keys', keys: [key] },
    rekor: [],
    identity: { type: 'matchRepository' },
  }
}

function bundle(trust: Partial<Pick<CaissonBundle, 'keys' | 'identities' | 'trustedRoot'>>): CaissonBundle {
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
