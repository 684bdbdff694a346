/** Evidence from the guest's TPM: endorsement key, a fresh attestation key, quote, firmware event log. */
import type { CryptoProvider } from '#protocol/crypto-provider'
import { toBase64, toHex } from '#protocol/encoding'
import { tpmEvidenceJson } from '#protocol/tpm-messages'
import type { TpmDevice } from '../tpm/guest/device.ts'
import { prepareTpmAttestation } from '../tpm/guest/tpm-attestation.ts'
import { quoteForWorkload } from '../tpm/guest/workload-quote.ts'
import type { EvidenceSource } from './evidence-source.ts'
import { answerError } from './verifier-http.ts'

const WORKLOAD_DATA_BYTES = 64

/** What `Platform.tpm` is. */
export interface TpmWithLog extends TpmDevice {
  /** The firmware's event log as the kernel keeps it. */
  eventLog(): Promise<Uint8Array>
}

export function tpmEvidenceSource(options: { tpm: TpmWithLog; crypto: CryptoProvider }): EvidenceSource {
  const { tpm, crypto } = options
  return {
    // The form of the TPM attester of Confidential Containers, which pads the data to 64 bytes.
    forWorkload: async (runtimeData) => {
      const padded = new Uint8Array(WORKLOAD_DATA_BYTES)
      padded.set(runtimeData)
      const { akPublic, message, signature, pcrs } = await quoteForWorkload({ device: tpm, crypto }, padded)
      return {
        ak_public: toBase64(akPublic),
        tpm_quote: {
          message: toBase64(message),
          signature: toBase64(signature),
          pcrs: pcrs.map((value) => toHex(value ?? new Uint8Array())),
        },
        event_log: toBase64(await tpm.eventLog()),
        report_data: toBase64(padded),
      }
    },
    prepare: async () => {
      const attestation = await prepareTpmAttestation({ device: tpm, crypto })
      return {
        request: { tee: 'tpm', tpm: attestation.request },
        answer: async ({ challenge, reportData, images }) => {
          if (challenge.tpm === undefined) throw answerError('a challenge without the TPM extension')
          const eventLog = await tpm.eventLog()
          return tpmEvidenceJson(await attestation.answer({ challenge: challenge.tpm, reportData, eventLog, images }))
        },
        [Symbol.asyncDispose]: () => attestation[Symbol.asyncDispose](),
      }
    },
  }
}
