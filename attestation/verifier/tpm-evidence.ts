/** Evidence of TPMs for the KBS service. */
import { UnverifiedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import type { Appraisal, ChallengeOffer, EvidenceKind } from './evidence.ts'

export interface TpmEvidenceOptions {
  readonly roots: readonly string[]
  readonly intermediates: readonly string[]
  readonly now: () => Date
}

export class TpmEvidenceKind implements EvidenceKind {
  readonly tee = 'tpm'
  readonly #options: TpmEvidenceOptions

  constructor(options: TpmEvidenceOptions) {
    this.#options = options
  }

  challenge(): ChallengeOffer {
    throw new UnverifiedError('ERR_EK_UNTRUSTED', `no TPM is trusted at ${this.#options.now().toISOString()}`)
  }

  appraise(): Appraisal {
    throw new UnverifiedError('ERR_EK_UNTRUSTED', 'no TPM is trusted')
  }
}

export function parseTpmReference(document: string): { readonly id: string } {
  const fields = JsonFields.parse(document, 'reference values', { code: 'ERR_REFERENCE_VALUES', maxChars: 1024 * 1024 })
  return { id: fields.string('id', 128) }
}
