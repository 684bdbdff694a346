/**
 * The raw stream server (vsock port 1025): a ticket line, "OK", then bytes. What the bytes are was decided by the RPC
 * that issued the ticket.
 */
import { STREAM_ACCEPTED, TICKET_LINE_BYTES } from '#protocol/agent-service'
import type { ByteStream } from '#protocol/byte-stream'
import type { Clock } from '../platform/platform.ts'
import { MAX_RAW_STREAMS, TICKET_LINE_TIMEOUT_MS } from './limits.ts'
import type { TicketOffice } from './tickets.ts'

const PREFIX = new TextEncoder().encode('TICKET ')
const NEWLINE = 0x0a

export class RawStreamServer {
  readonly #tickets: TicketOffice
  readonly #clock: Clock
  #open = 0

  constructor(tickets: TicketOffice, clock: Clock) {
    this.#tickets = tickets
    this.#clock = clock
  }

  /** Serves one connection to its end; never rejects. */
  async serve(stream: ByteStream): Promise<void> {
    if (this.#open >= MAX_RAW_STREAMS) return stream.destroy()
    this.#open++
    try {
      const line = await this.#ticketLine(stream)
      const handler = line === undefined ? undefined : this.#tickets.redeem(line.ticket)
      if (line === undefined || handler === undefined) return
      await stream.write(new TextEncoder().encode(STREAM_ACCEPTED))
      await handler(line.rest.byteLength === 0 ? stream : withFirstBytes(stream, line.rest))
    } catch {
      // The peer left, or what it was connected to did: either way the stream has ended.
    } finally {
      stream.destroy()
      this.#open--
    }
  }

  async #ticketLine(stream: ByteStream): Promise<{ ticket: Uint8Array; rest: Uint8Array } | undefined> {
    const decided = new AbortController()
    void this.#clock.sleep(TICKET_LINE_TIMEOUT_MS, decided.signal).then(() => {
      if (!decided.signal.aborted) stream.destroy()
    })
    try {
      return await readTicketLine(stream)
    } finally {
      decided.abort()
    }
  }
}

/** Undefined unless the stream begins with a whole ticket line. Bytes after it are kept. */
export async function readTicketLine(
  stream: ByteStream,
): Promise<{ ticket: Uint8Array; rest: Uint8Array } | undefined> {
  const line = new Uint8Array(TICKET_LINE_BYTES)
  for (let filled = 0; filled < TICKET_LINE_BYTES; ) {
    const chunk = await stream.read()
    if (chunk === null) return undefined
    const taken = chunk.subarray(0, TICKET_LINE_BYTES - filled)
    line.set(taken, filled)
    filled += taken.byteLength
    if (filled < TICKET_LINE_BYTES) continue
    if (line[TICKET_LINE_BYTES - 1] !== NEWLINE || !PREFIX.every((byte, index) => line[index] === byte))
      return undefined
    return { ticket: line.slice(PREFIX.byteLength, -1), rest: chunk.subarray(taken.byteLength) }
  }
  return undefined
}

/** A peer may send its first bytes with the ticket: they belong to the stream. */
function withFirstBytes(stream: ByteStream, first: Uint8Array): ByteStream {
  let pending: Uint8Array | undefined = first
  return {
    read: async () => {
      const bytes = pending
      pending = undefined
      return bytes ?? stream.read()
    },
    write: (bytes) => stream.write(bytes),
    end: () => stream.end(),
    destroy: () => stream.destroy(),
  }
}
