/** Where the guest's evidence comes from. `tpm-evidence-source.ts` is the TPM's. */
import type { JsonValue } from '#protocol/canonical-json'
import type { AdmittedImage, KbsChallenge, KbsRequest } from '#protocol/kbs-messages'

export interface EvidenceSource {
  /** Makes what the request announces: for a TPM, a fresh attestation key. */
  prepare(): Promise<PreparedEvidence>
  /**
   * Evidence outside of any handshake, over data of a workload's choice, that no verifier would take for a handshake's.
   * Absent where the platform has no such thing. @param runtimeData at most 64 bytes
   */
  readonly forWorkload?: (runtimeData: Uint8Array) => Promise<JsonValue>
}

/** One handshake's evidence. Disposing it frees what it holds in the TPM. */
export interface PreparedEvidence extends AsyncDisposable {
  readonly request: Pick<KbsRequest, 'tee' | 'tpm'>
  /** `tee-evidence.primary_evidence`. @param input.reportData 48 bytes that the evidence must be bound to */
  answer(input: {
    readonly challenge: KbsChallenge
    readonly reportData: Uint8Array
    readonly images: readonly AdmittedImage[]
  }): Promise<JsonValue>
}
