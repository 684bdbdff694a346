/**
 * How many questions each tenant may have asked for evidence that nothing has proven yet. A report says itself of which chip
 * it is, and before that chip's certificate is there nobody knows whether it is a report at all: whoever reaches a tenant's
 * verifier can name chips without end, each of them a question to its maker, who counts them. Questions for evidence that
 * turns out genuine are given back, so that only made-up evidence uses the budget up, and it that of its own tenant.
 */

/** At hand at once: new machines of a cluster may well come together. */
const MAX_UNPROVEN = 32
/** Then one for each of these, milliseconds. */
const FORGOTTEN_EVERY_MS = 10_000
/** Tenants that are remembered; those without a question lately need not be. */
const MAX_TENANTS = 1_000

export class UnprovenQuestions {
  readonly #now: () => Date
  readonly #asked = new Map<string, { readonly count: number; readonly atMs: number }>()

  constructor(now: () => Date) {
    this.#now = now
  }

  /** False: none is left. */
  take(tenant: string): boolean {
    const count = this.#count(tenant)
    if (count + 1 > MAX_UNPROVEN) return false
    this.#set(tenant, count + 1)
    return true
  }

  /** The evidence was genuine. */
  giveBack(tenant: string, questions: number): void {
    this.#set(tenant, this.#count(tenant) - questions)
  }

  #count(tenant: string): number {
    const { count, atMs } = this.#asked.get(tenant) ?? { count: 0, atMs: 0 }
    return Math.max(0, count - Math.max(0, this.#now().getTime() - atMs) / FORGOTTEN_EVERY_MS)
  }

  #set(tenant: string, count: number): void {
    this.#asked.delete(tenant)
    if (count <= 0) return
    if (this.#asked.size >= MAX_TENANTS) {
      for (const other of this.#asked.keys()) if (this.#count(other) === 0) this.#asked.delete(other)
    }
    this.#asked.set(tenant, { count, atMs: this.#now().getTime() })
  }
}
