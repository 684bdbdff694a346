/**
 * One-time tickets: an RPC that was judged hands one out, the raw stream that shows it gets what was judged. Short-lived,
 * bounded in number, compared in constant time.
 */
import type { ByteStream } from '#protocol/byte-stream'
import type { CryptoProvider } from '#protocol/crypto-provider'
import { toHex } from '#protocol/encoding'
import { limitExceeded } from './agent-error.ts'
import { MAX_TICKETS, TICKET_LIFETIME_MS } from './limits.ts'

const TICKET_BYTES = 16

/** Serves one accepted stream to its end; closes it in every case. */
export type StreamHandler = (stream: ByteStream) => Promise<void>

interface Ticket {
  readonly text: Uint8Array
  readonly expiresMs: number
  readonly handler: StreamHandler
}

export class TicketOffice {
  readonly #crypto: CryptoProvider
  readonly #monotonicMs: () => number
  readonly #tickets = new Set<Ticket>()

  constructor(crypto: CryptoProvider, monotonicMs: () => number) {
    this.#crypto = crypto
    this.#monotonicMs = monotonicMs
  }

  /** 32 lower-case hex digits. @throws AgentError ERR_LIMIT while too many are unused */
  issue(handler: StreamHandler): string {
    this.#dropExpired()
    if (this.#tickets.size >= MAX_TICKETS) throw limitExceeded('unused stream tickets', MAX_TICKETS)
    const text = toHex(this.#crypto.randomBytes(TICKET_BYTES))
    this.#tickets.add({
      text: new TextEncoder().encode(text),
      expiresMs: this.#monotonicMs() + TICKET_LIFETIME_MS,
      handler,
    })
    return text
  }

  /** Takes the ticket out: the same text never works again. Undefined for anything unknown or late. */
  redeem(text: Uint8Array): StreamHandler | undefined {
    this.#dropExpired()
    let found: Ticket | undefined
    // All are compared, so the time tells nothing about how near a guess came.
    for (const ticket of this.#tickets) {
      if (this.#crypto.timingSafeEqual(ticket.text, text)) found = ticket
    }
    if (found === undefined) return undefined
    this.#tickets.delete(found)
    return found.handler
  }

  #dropExpired(): void {
    const now = this.#monotonicMs()
    for (const ticket of this.#tickets) if (ticket.expiresMs <= now) this.#tickets.delete(ticket)
  }
}
