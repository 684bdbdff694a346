/**
 * What the KBS service needs of a kind of evidence. `tpm-evidence.ts` implements it for TPMs,
 * `hardware-evidence.ts` for SEV-SNP, TDX and Azure's machines on either.
 */
import type { JsonObject } from '#protocol/canonical-json'
import type { AdmittedImage, KbsAttestation, KbsRequest, KbsVersion, TpmChallenge } from '#protocol/kbs-messages'
import type { ClaimCheck } from '../store/attestation-log.ts'
import type { StoredReference } from '../store/reference-store.ts'
import type { TrustVector } from '../token/trust-vector.ts'
import type { InitdataDocument } from './initdata-document.ts'
import type { TenantDemands } from './tenant-demands.ts'

export interface ChallengeOffer {
  /** Sealed into the session and handed back with the answer; it may hold secrets. Small: it travels in a cookie. */
  readonly state: JsonObject
  readonly tpm?: TpmChallenge
}

export interface AnswerInput {
  /** Whose guest answers. */
  readonly tenant: string
  readonly state: JsonObject
  readonly version: KbsVersion
  /** The session's nonce: the one the evidence must be bound to. */
  readonly nonce: string
  readonly attestation: KbsAttestation
  /** Undefined when the answer has none. */
  readonly initdata: InitdataDocument | undefined
  readonly demands: TenantDemands
  /** Reference values that count. */
  readonly references: readonly StoredReference[]
  /** Candidates and retired ones, to explain refusals with. */
  readonly otherReferences: readonly StoredReference[]
}

interface AppraisalCommon {
  readonly checks: readonly ClaimCheck[]
  readonly facts: Readonly<Record<string, string>>
}

export type Appraisal =
  | (AppraisalCommon & {
      readonly accepted: true
      readonly vector: TrustVector
      /** The reference-value document that matched as a whole; undefined when the policy itself lists what may boot. */
      readonly referenceId: string | undefined
      /** The appraisal policy that it satisfies. */
      readonly policyId: string
      /** Hex. */
      readonly reportData: string
      readonly initdataDigest: string
      readonly teeClaims: Readonly<Record<string, unknown>>
      readonly images: readonly AdmittedImage[]
    })
  | (AppraisalCommon & {
      readonly accepted: false
      readonly code: string
      readonly reason: string
      readonly hint: string | undefined
    })

export interface EvidenceKind {
  /** As the KBS protocol names it. */
  readonly tee: string
  /**
   * @param demands asked for only where the challenge depends on them
   * @throws MalformedError, UnverifiedError when the request does not come from a machine that may be challenged
   */
  challenge(request: KbsRequest, demands: () => Promise<TenantDemands>): ChallengeOffer | Promise<ChallengeOffer>
  /**
   * A verdict about well-formed evidence is returned, with every comparison that was made.
   *
   * @throws MalformedError, UnverifiedError when it could not be appraised at all
   */
  appraise(input: AnswerInput): Appraisal | Promise<Appraisal>
}
