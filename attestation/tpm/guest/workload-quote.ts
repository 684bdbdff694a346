/**
 * A quote for a workload, over data of its choice. Its attestation key is made for it and gone afterwards, and no
 * credential is ever activated for that key: the evidence cannot be passed off as the guest's own answer to a challenge.
 */
import type { CryptoProvider } from '#protocol/crypto-provider'
import { equalBytes } from '#protocol/encoding'
import { UnavailableError } from '#protocol/errors'
import { PCR_COUNT } from '#protocol/tpm-messages'
import { parseQuoteAttest } from '../parse/attest.ts'
import { createPrimary, flushContext, quote } from './commands.ts'
import type { TpmDevice } from './device.ts'
import { readPcrs } from './pcrs.ts'
import { attestationKeyTemplate } from './tpm-attestation.ts'

export interface WorkloadQuote {
  /** TPMT_PUBLIC of the attestation key. */
  readonly akPublic: Uint8Array
  /** TPMS_ATTEST and TPMT_SIGNATURE. */
  readonly message: Uint8Array
  readonly signature: Uint8Array
  /** Index = PCR; undefined where not selected. SHA-256 bank. */
  readonly pcrs: readonly (Uint8Array | undefined)[]
}

/** Firmware, kernel, command line and initdata; 14 and 15: what the guest extends itself. */
const SELECTION = { bank: 'sha256' as const, pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 15] }
const MAX_QUOTES = 4

/**
 * Takes one of the TPM's object slots for as long as it lasts: not during an attestation.
 *
 * @param qualifyingData at most 64 bytes
 * @throws UnavailableError ERR_TPM_PCRS_MOVING, and what `runCommand` throws
 */
export async function quoteForWorkload(
  { device, crypto }: { readonly device: TpmDevice; readonly crypto: CryptoProvider },
  qualifyingData: Uint8Array,
): Promise<WorkloadQuote> {
  const ak = await createPrimary(device, attestationKeyTemplate(crypto.randomBytes(32)))
  try {
    for (let attempt = 0; attempt < MAX_QUOTES; attempt++) {
      const { message, signature } = await quote(device, { ak: ak.handle, qualifyingData, selection: SELECTION })
      const values = await readPcrs(device, SELECTION)
      const hash = crypto.createHash('sha256')
      for (const value of values.values()) hash.update(value)
      // Both of the same moment: an image may be admitted in between.
      if (!equalBytes(hash.digest(), parseQuoteAttest(message).pcrDigest)) continue
      const pcrs = Array.from({ length: PCR_COUNT }, (_, pcr) => values.get(pcr))
      return { akPublic: ak.publicArea, message, signature, pcrs }
    }
  } finally {
    await flushContext(device, ak.handle)
  }
  throw new UnavailableError('ERR_TPM_PCRS_MOVING', 'PCRs changed between each quote and the reading of its values')
}
