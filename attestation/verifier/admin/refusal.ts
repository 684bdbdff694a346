/** What the verifier answers an administrator whose command it does not carry out. */
import { VerifierRefusal } from '../../client/verifier-http.ts'

/**
 * Whose part it is to change something: `input`, what the command said; `rights`, who says it, or what it brought is not
 * genuine; `verifier`, the verifier itself cannot now.
 */
export type RefusalCause = 'input' | 'rights' | 'verifier'

/**
 * `code` is ERR_VERIFIER_REFUSED. Administrators are told what is wrong at once, with the remedy, so nothing is recorded that
 * they could ask for; of its own failures the verifier's log tells more.
 */
export class AdministratorRefusal extends VerifierRefusal {
  readonly because: RefusalCause

  constructor(refusal: VerifierRefusal['refusal'], detail: string) {
    const because = causeOf(refusal.status)
    super(refusal, detail, {
      message: `the verifier refused with ${refusal.code}: ${detail}`,
      hint: because === 'verifier' ? `The verifier’s own log tells more under ${refusal.correlationId}.` : undefined,
    })
    this.because = because
  }
}

function causeOf(status: number): RefusalCause {
  if (status >= 500 || status === 429) return 'verifier'
  return status === 401 || status === 403 ? 'rights' : 'input'
}
