/**
 * What the KBS service needs of a kind of evidence. One implementation per TEE: `tpm-evidence.ts` is the first.
 */
import type { JsonObject } from '#protocol/canonical-json'
import type { AdmittedImage, KbsAttestation, KbsRequest, KbsVersion, TpmChallenge } from '#protocol/kbs-messages'
import type { ClaimCheck } from '../store/attestation-log.ts'
import type { StoredReference } from '../store/reference-store.ts'
import type { TrustVector } from '../token/trust-vector.ts'

export interface ChallengeOffer {
  /** Sealed into the session and handed back with the answer; it may hold secrets. Small: it travels in a cookie. */
  readonly state: JsonObject
  readonly tpm?: TpmChallenge
}

export interface AnswerInput {
  readonly state: JsonObject
  readonly version: KbsVersion
  /** The session's nonce: the one the evidence must be bound to. */
  readonly nonce: string
  readonly attestation: KbsAttestation
  readonly references: readonly StoredReference[]
}

interface AppraisalCommon {
  readonly checks: readonly ClaimCheck[]
  readonly facts: Readonly<Record<string, string>>
}

export type Appraisal =
  | (AppraisalCommon & {
      readonly accepted: true
      readonly vector: TrustVector
      /** The reference-value document that matched as a whole. */
      readonly referenceId: string
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
   * @throws MalformedError, UnverifiedError when the request does not come from a machine that may be challenged
   */
  challenge(request: KbsRequest): ChallengeOffer
  /**
   * A verdict about well-formed evidence is returned, with every comparison that was made.
   *
   * @throws MalformedError, UnverifiedError when it could not be appraised at all
   */
  appraise(input: AnswerInput): Appraisal | Promise<Appraisal>
}
