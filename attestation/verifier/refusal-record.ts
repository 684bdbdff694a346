/** What a guest was refused, kept for the tenant under the id that the guest is told. */
import { CaissonError, DeniedError } from '#protocol/errors'
import { AttestationLog, type AttestationStage, type NewRecord } from '../store/attestation-log.ts'

/** An error that has been recorded: `correlationId` is the record's id. */
export class RecordedError extends Error {
  readonly correlationId: string

  constructor(correlationId: string, cause: unknown) {
    super('recorded', { cause })
    this.correlationId = correlationId
  }
}

export interface RefusalContext {
  handshake: string | undefined
  readonly stage: AttestationStage
  tee: string
  readonly path?: string
}

/** Records the refusal; the error to throw instead comes back. */
export async function recordRefusal(
  log: AttestationLog,
  context: RefusalContext,
  refusal: { readonly error: unknown; readonly at: Date },
): Promise<RecordedError> {
  const { error, at } = refusal
  if (error instanceof RecordedError) return error
  const known = error instanceof CaissonError ? error : undefined
  const id = AttestationLog.newId()
  const record: NewRecord = {
    id,
    handshake: context.handshake,
    at,
    stage: context.stage,
    tee: context.tee,
    verdict: 'refused',
    code: known?.code ?? 'ERR_INTERNAL',
    reason: known?.message ?? 'internal error',
    hint: known?.hint,
    checks: denialCheck(error),
    facts: context.path === undefined ? {} : { resource: context.path.slice(0, 512) },
  }
  try {
    await log.add(record)
  } catch {
    // The store is what failed: the answer still goes out, with an id that leads to the process log only.
  }
  return new RecordedError(id, error)
}

function denialCheck(error: unknown): NewRecord['checks'] {
  if (!(error instanceof DeniedError)) return []
  const remedy = error.hint === undefined ? {} : { remedy: error.hint }
  return [{ claim: error.field, expected: error.allowed, found: error.asked, ok: false, ...remedy }]
}
