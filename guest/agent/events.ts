/** Enumerated progress events with a bounded history; a watcher that comes late or is slow misses the oldest. */
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { EventSchema } from '#protocol/gen/agent_pb'
import { limitExceeded } from './agent-error.ts'
import { MAX_EVENT_HISTORY, MAX_EVENT_WATCHERS } from './limits.ts'

type EventInit = MessageInitShape<typeof EventSchema>
/** Everything of an event but its place and time. */
export type EventBody = Omit<EventInit, '$typeName' | '$unknown' | 'sequence' | 'atMs'>

export class EventLog {
  readonly #monotonicMs: () => number
  readonly #startMs: number
  readonly #events: (EventBody & { readonly sequence: bigint; readonly atMs: bigint })[] = []
  readonly #wake = new Set<() => void>()
  #watchers = 0
  #sequence = 0n

  constructor(monotonicMs: () => number) {
    this.#monotonicMs = monotonicMs
    this.#startMs = monotonicMs()
  }

  append(event: EventBody): void {
    this.#sequence += 1n
    const atMs = BigInt(Math.max(0, Math.round(this.#monotonicMs() - this.#startMs)))
    this.#events.push({ ...event, sequence: this.#sequence, atMs })
    if (this.#events.length > MAX_EVENT_HISTORY) this.#events.shift()
    for (const wake of this.#wake) wake()
    this.#wake.clear()
  }

  /** Events with a sequence number above `after`, then those to come, until `signal` fires. */
  async *watch(after: bigint, signal: AbortSignal): AsyncGenerator<EventInit, void, undefined> {
    if (this.#watchers >= MAX_EVENT_WATCHERS) throw limitExceeded('watchers of events', MAX_EVENT_WATCHERS)
    this.#watchers++
    try {
      let seen = after
      while (!signal.aborted) {
        const next = this.#events.find((event) => event.sequence > seen)
        if (next === undefined) {
          await this.#nextEvent(signal)
          continue
        }
        seen = next.sequence
        yield next
      }
    } finally {
      this.#watchers--
    }
  }

  #nextEvent(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#wake.delete(done)
        signal.removeEventListener('abort', done)
        resolve()
      }
      this.#wake.add(done)
      signal.addEventListener('abort', done, { once: true })
    })
  }
}
