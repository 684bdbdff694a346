/**
 * Why something was refused. The host sees a code and a correlation id; the reason stays here. When initdata has a tenant
 * key, the host also gets the reason sealed to it, to hand on. The tenant's verifier is told, too, without the host.
 */

import { VerifierRefusal } from '#attestation/client/verifier-http'
import { requestCase } from '#policies/request-case'
import type { ContainerRequest } from '#policies/requests'
import { refusalError } from '#protocol/agent-service'
import type { CryptoProvider } from '#protocol/crypto-provider'
import { toHex } from '#protocol/encoding'
import { CaissonError, DeniedError, errorText, UnavailableError, UnverifiedError } from '#protocol/errors'
import { MAX_REPORTED_REQUEST, type ReasonReport } from '#protocol/reason-report'
import type { RefusalReason } from '#protocol/refusal-reason'
import type { TenantKey } from '#protocol/tenant-key'
import { RpcError } from '#protocol/ttrpc/status'
import { AgentError } from './agent-error.ts'
import { deniedRequest } from './denied-requests.ts'
import { MAX_REASONS, MAX_REASONS_PER_ANSWER } from './limits.ts'

export interface Reason extends RefusalReason {
  readonly atMs: number
}

/** Characters of each text that is kept: most of them are the host's own words, and it may send many. */
const MAX_REASON_CHARS = 2048

export interface SealedEntry {
  readonly sequence: bigint
  readonly correlationId: string
  readonly code: string
  readonly sealed: Uint8Array
}

/** A reason, and what became of it for the tenant. */
class Entry {
  readonly sequence: bigint
  readonly reason: Reason
  #sealed: Promise<Uint8Array | undefined> | undefined

  constructor(sequence: bigint, reason: Reason) {
    this.sequence = sequence
    this.reason = reason
  }

  /** Once. A reason that cannot be sealed is not told: its code still is. */
  seal(key: TenantKey): Promise<Uint8Array | undefined> {
    this.#sealed ??= seal(key, this.reason).catch(() => undefined)
    return this.#sealed
  }
}

/** In memory, the newest entries. */
export class ReasonLog {
  readonly #entries: Entry[] = []
  #sequence = 0n
  #key: TenantKey | undefined
  #listener: ((report: ReasonReport) => void) | undefined

  get entries(): readonly Reason[] {
    return this.#entries.map(({ reason }) => reason)
  }

  /** From here on reasons can leave the guest, sealed to this key; those from before, too. */
  sealTo(key: TenantKey): void {
    this.#key = key
  }

  /** Told of each reason from here on that is for tenants, and that their verifier does not have. */
  reportTo(listener: (report: ReasonReport) => void): void {
    this.#listener = listener
  }

  /** @param report whether it is for the tenant's verifier, and the request that it is about; neither is kept */
  record(reason: Reason, report?: { readonly request: ContainerRequest | undefined }): void {
    if (report !== undefined) this.#listener?.(reportOf(reason, report.request))
    this.#sequence += 1n
    this.#entries.push(new Entry(this.#sequence, reason))
    if (this.#entries.length > MAX_REASONS) this.#entries.shift()
  }

  /** Undefined without a tenant key, and for what was forgotten. */
  async sealed(correlationId: string): Promise<Uint8Array | undefined> {
    const entry = this.#entries.findLast(({ reason }) => reason.correlationId === correlationId)
    return this.#key === undefined ? undefined : entry?.seal(this.#key)
  }

  /** The next ones after a sequence number, oldest first; none without a tenant key. */
  async sealedAfter(after: bigint): Promise<readonly SealedEntry[]> {
    const key = this.#key
    if (key === undefined) return []
    const next = this.#entries.filter(({ sequence }) => sequence > after).slice(0, MAX_REASONS_PER_ANSWER)
    const answers: SealedEntry[] = []
    for (const { entry, sealed } of await Promise.all(
      next.map(async (e) => ({ entry: e, sealed: await e.seal(key) })),
    )) {
      const { correlationId, code } = entry.reason
      if (sealed !== undefined) answers.push({ sequence: entry.sequence, correlationId, code, sealed })
    }
    return answers
  }
}

/** Loaded when something is refused: most guests never need it. */
async function seal(key: TenantKey, { atMs, ...reason }: Reason): Promise<Uint8Array> {
  const { sealReason } = await import('#protocol/sealed-reason')
  return sealReason(key, { ...reason, at: new Date(atMs).toISOString() })
}

function reportOf(reason: Reason, request: ContainerRequest | undefined): ReasonReport {
  const { correlationId, code, subject, message, hint, denial } = reason
  const step = request === undefined ? undefined : JSON.stringify(requestCase(request))
  // Reports wait in memory, and a host may ask for much.
  const isShort = step !== undefined && step.length <= MAX_REPORTED_REQUEST
  return { correlationId, code, subject, message, hint, denial, request: isShort ? step : undefined }
}

/** What an error becomes for the host. */
export interface Refused {
  readonly code: string
  readonly correlationId: string
  /** A policy, signature, digest or the verifier said no, as opposed to something that broke. */
  readonly denied: boolean
}

export class Refusals {
  readonly #log: ReasonLog
  readonly #crypto: CryptoProvider
  readonly #now: () => Date
  readonly #known = new WeakMap<Error, Refused>()

  constructor(log: ReasonLog, crypto: CryptoProvider, now: () => Date) {
    this.#log = log
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
    const reason = {
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
    }
    const isForTenant = verifiers === undefined && !(error instanceof AgentError)
    this.#log.record(reason, isForTenant ? { request: deniedRequest(error) } : undefined)
    const refused = { code, correlationId, denied: isNo(error) }
    if (error instanceof Error) this.#known.set(error, refused)
    return refused
  }

  /** For the tenant alone; empty when initdata has no tenant key. */
  async sealed({ correlationId }: Refused): Promise<Uint8Array> {
    return (await this.#log.sealed(correlationId)) ?? new Uint8Array()
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
