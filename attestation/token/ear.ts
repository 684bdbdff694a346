/**
 * Attestation results as the verifier states them: EAR claims (draft-fv-rats-ear) in the shape that KBS clients know,
 * with one addition: `caisson.images`, the images that the guest had measured when it asked for this token.
 */
import type { AdmittedImage, TeePublicKey } from '#protocol/kbs-messages'
import { statusOf, type TrustTier, type TrustVector } from './trust-vector.ts'

/** eat_profile of the token shape that existing KBS clients expect. */
export const EAT_PROFILE = 'tag:github.com,2024:confidential-containers/Trustee'

export interface EarSubmodule {
  readonly 'ear.status': TrustTier
  readonly 'ear.trustworthiness-vector': TrustVector
  /** Name of the reference-value document that the evidence matched; of the policy, where that lists what may boot. */
  readonly 'ear.appraisal-policy-id': string
  readonly 'ear.veraison.annotated-evidence': {
    readonly report_data: string
    readonly runtime_data_claims: { readonly nonce: string; readonly 'tee-pubkey': TeePublicKey }
    /** Digest of the initdata that the guest was started with, hex. */
    readonly init_data: string
    readonly init_data_claims: Readonly<Record<string, unknown>>
    readonly [tee: string]: unknown
  }
}

/** One image that runs in the guest. Its layers are not listed: the config's digest covers their diff ids. */
export interface ImageClaim {
  readonly container: string
  readonly manifest: string
  readonly config: string
}

export interface EarClaims {
  readonly eat_profile: string
  readonly iss: string
  /** Seconds since 1970, like every time in a JWT. */
  readonly iat: number
  readonly exp: number
  /** Id of the stored attestation: the tenant finds its record by it. */
  readonly jti: string
  readonly 'ear.verifier-id': { readonly developer: string; readonly build: string }
  readonly submods: { readonly cpu0: EarSubmodule }
  /** The reference-value document that the evidence matched; absent where the policy itself lists what may boot. */
  readonly 'caisson.reference'?: string
  /** The appraisal policy that the evidence satisfies. */
  readonly 'caisson.policy': string
  readonly 'caisson.images'?: readonly ImageClaim[]
}

export interface EarFacts {
  readonly issuer: string
  readonly attestationId: string
  readonly issuedAt: Date
  readonly lifetimeMs: number
  readonly vector: TrustVector
  readonly referenceId: string | undefined
  readonly policyId: string
  readonly reportData: string
  readonly nonce: string
  readonly teePublicKey: TeePublicKey
  readonly initdataDigest: string
  /** Digest of each document in it, by name: `policy.yaml` is the workload policy. Default: none is named. */
  readonly initdataClaims?: Readonly<Record<string, string>>
  readonly tee: string
  readonly teeClaims: Readonly<Record<string, unknown>>
  /** Empty for the first attestation: the claim is then absent. */
  readonly images: readonly AdmittedImage[]
}

export function earClaims(facts: EarFacts): EarClaims {
  const iat = Math.floor(facts.issuedAt.getTime() / 1000)
  return {
    eat_profile: EAT_PROFILE,
    iss: facts.issuer,
    iat,
    exp: iat + Math.floor(facts.lifetimeMs / 1000),
    jti: facts.attestationId,
    'ear.verifier-id': { developer: 'caisson', build: 'verifier 0.1.0' },
    submods: {
      cpu0: {
        'ear.status': statusOf(facts.vector),
        'ear.trustworthiness-vector': facts.vector,
        'ear.appraisal-policy-id': facts.referenceId ?? facts.policyId,
        'ear.veraison.annotated-evidence': {
          report_data: facts.reportData,
          runtime_data_claims: { nonce: facts.nonce, 'tee-pubkey': facts.teePublicKey },
          init_data: facts.initdataDigest,
          init_data_claims: facts.initdataClaims ?? {},
          [facts.tee]: facts.teeClaims,
        },
      },
    },
    ...(facts.referenceId === undefined ? {} : { 'caisson.reference': facts.referenceId }),
    'caisson.policy': facts.policyId,
    ...(facts.images.length === 0 ? {} : { 'caisson.images': facts.images.map(imageClaim) }),
  }
}

function imageClaim({ container, manifest, config }: AdmittedImage): ImageClaim {
  return { container, manifest, config }
}
