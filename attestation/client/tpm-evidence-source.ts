/** Evidence from the guest's TPM: endorsement key, a fresh attestation key, quote, firmware event log. */
import type { CryptoProvider } from '#protocol/crypto-provider'
import { tpmEvidenceJson } from '#protocol/tpm-messages'
import type { TpmDevice } from '../tpm/guest/device.ts'
import { prepareTpmAttestation } from '../tpm/guest/tpm-attestation.ts'
import type { EvidenceSource } from './evidence-source.ts'
import { answerError } from './verifier-http.ts'

/** What `Platform.tpm` is. */
export interface TpmWithLog extends TpmDevice {
  /** The firmware's event log as the kernel keeps it. */
  eventLog(): Promise<Uint8Array>
}

export function tpmEvidenceSource(options: { tpm: TpmWithLog; crypto: CryptoProvider }): EvidenceSource {
  const { tpm, crypto } = options
  return {
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
