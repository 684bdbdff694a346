/**
 * Why something was refused. The host sees a code and a correlation id; the reason stays here, for the tenant who gets it
 * sealed to a key of its own, never for the host.
 */

import { VerifierRefusal } from '#attestation/client/verifier-http'
import { refusalError } from '#protocol/agent-service'
import type { CryptoProvider } from '#protocol/crypto-provider'
import { toHex } from '#protocol/encoding'
import { CaissonError, DeniedError, errorText, UnavailableError, UnverifiedError } from '#protocol/errors'
import { RpcError } from '#protocol/ttrpc/status'
import { AgentError } from './agent-error.ts'
import { MAX_REASONS } from './limits.ts'

export interface Reason {
  readonly correlationId: string
  readonly atMs: number
  readonly code: string
  /** What the host asked for: "CreateContainer web". */
  readonly subject: string
  readonly message: string
  readonly hint: string | undefined
  /** For denials: the rule. */
  readonly denial: { readonly field: string; readonly allowed: string; readonly asked: string } | undefined
}

export interface ReasonSink {
  record(reason: Reason): void
}

/** Characters of each text that is kept: most of them are the host's own words, and it may send many. */
const MAX_REASON_CHARS = 2048

/** In memory, the newest entries. */
export class ReasonLog implements ReasonSink {
  readonly #entries: Reason[] = []

  record(reason: Reason): void {
    this.#entries.push(reason)
    if (this.#entries.length > MAX_REASONS) this.#entries.shift()
  }

  get entries(): readonly Reason[] {
    return this.#entries
  }
}

/** What an error becomes for the host. */
export interface Refused {
  readonly code: string
  readonly correlationId: string
  /** A policy, signature, digest or the verifier said no, as opposed to something that broke. */
  readonly denied: boolean
}

export class Refusals {
  readonly #sink: ReasonSink
  readonly #crypto: CryptoProvider
  readonly #now: () => Date
  readonly #known = new WeakMap<Error, Refused>()

  constructor(sink: ReasonSink, crypto: CryptoProvider, now: () => Date) {
    this.#sink = sink
    this.#crypto = crypto
    this.#now = now
  }

  /** Records the reason once per error and answers with what the host may know. */
  record(error: unknown, subject: string): Refused {
    const known = error instanceof Error ? this.#known.get(error) : undefined
    if (known !== undefined) return known
    // A refusal of the verifier keeps the id under which the verifier keeps its reasons.
    const verifiers = error instanceof VerifierRefusal ? error.refusal : undefined
    const code = verifiers?.code ?? (error instanceof CaissonError ? error.code : 'ERR_INTERNAL')
    const correlationId = verifiers?.correlationId ?? toHex(this.#crypto.randomBytes(8))
    this.#sink.record({
      correlationId,
      atMs: this.#now().getTime(),
      code,
      subject: bounded(subject),
      message: bounded(withCauses(error)),
      hint: error instanceof CaissonError && error.hint !== undefined ? bounded(error.hint) : undefined,
      denial:
        error instanceof DeniedError
          ? { field: bounded(error.field), allowed: bounded(error.allowed), asked: bounded(error.asked) }
          : undefined,
    })
    const refused = { code, correlationId, denied: isNo(error) }
    if (error instanceof Error) this.#known.set(error, refused)
    return refused
  }

  /** What an RPC handler throws in place of `error`. */
  toRpc(error: unknown, subject: string): RpcError {
    if (error instanceof RpcError) return error
    const { code, correlationId } = this.record(error, subject)
    return refusalError(statusOf(error), { code, correlationId })
  }
}

function statusOf(error: unknown): Parameters<typeof refusalError>[0] {
  if (error instanceof AgentError) return error.status
  if (isNo(error)) return 'permissionDenied'
  if (error instanceof UnavailableError) return 'unavailable'
  return error instanceof CaissonError ? 'failedPrecondition' : 'internal'
}

/** A policy, signature, digest or the verifier said no, as opposed to something that broke. */
function isNo(error: unknown): boolean {
  return error instanceof DeniedError || error instanceof UnverifiedError || error instanceof VerifierRefusal
}

function withCauses(error: unknown): string {
  const texts = [errorText(error)]
  for (let cause = error instanceof Error ? error.cause : undefined; cause !== undefined && texts.length < 5; ) {
    texts.push(errorText(cause))
    cause = cause instanceof Error ? cause.cause : undefined
  }
  return texts.join(': ')
}

/** A copy: a slice would keep the whole text that it was cut from. */
function bounded(text: string): string {
  return text.length <= MAX_REASON_CHARS ? text : structuredClone(text.slice(0, MAX_REASON_CHARS))
}
