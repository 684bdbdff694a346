/** What every appraisal of evidence is given besides the evidence. */
import type { ParsedCertificate } from '../x509/certificate.ts'
import type { Collateral } from './collateral.ts'

export interface AppraisalContext {
  /** The moment that certificates, lists and collateral must be valid at. */
  readonly at: Date
  /** What the evidence must be bound to: report data, padded on the right with zeros, or a TPM's qualifying data. */
  readonly nonce: Uint8Array | undefined
  readonly collateral: Collateral
  /** Roots that the tenant opts in to (`anchors` of the appraisal policy), besides those that are pinned in code. */
  readonly anchors: readonly ParsedCertificate[]
}
