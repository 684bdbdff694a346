/** Refusals as the attestation log keeps them: what goes out to the guest is an id, what went wrong stays with the tenant. */
import { CaissonError, DeniedError } from '#protocol/errors'
import { AttestationLog, type AttestationStage, type NewRecord } from './attestation-log.ts'

/** An error that has been recorded: `correlationId` is the record's id. */
export class RecordedError extends Error {
  readonly correlationId: string

  constructor(correlationId: string, cause: unknown) {
    super('recorded', { cause })
    this.correlationId = correlationId
  }
}

/** What was known when the refusal came; more of it while a request is read. */
export interface RefusalContext {
  readonly handshake: string | undefined
  readonly stage: AttestationStage
  readonly tee: string
  readonly path?: string
}

export function recordRefusal(
  to: { readonly log: AttestationLog; readonly now: () => Date },
  context: RefusalContext,
  error: unknown,
): RecordedError {
  const known = error instanceof CaissonError ? error : undefined
  const id = AttestationLog.newId()
  const record: NewRecord = {
    id,
    handshake: context.handshake,
    at: to.now(),
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
    to.log.add(record)
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
