/**
 * The bytes of a blob in order, whatever happens on the way: a connection that ends costs the bytes that are missing and
 * no more. Large blobs come over several connections, each with a range of its own, as soon as one does not keep its
 * reader busy: many ranges cost a registry more than one answer, and bring nothing to a reader who is the slower of both.
 */
import { CaissonError, UnavailableError } from '#protocol/errors'
import { type BodySink, pour } from '#protocol/http-transport'
import type { Descriptor } from '#protocol/oci/descriptor'
import type { ImageReference } from '#protocol/oci/reference'
import type { RegistryClient } from '../registry/client.ts'
import type { ByteRange } from '../registry/content-range.ts'
import { type Batch, BatchQueue } from './batch-queue.ts'
import type { Buffers, Slots } from './buffers.ts'
import { Pace } from './pace.ts'
import { Patience, type Trouble } from './patience.ts'

/** Of each buffer. Native calls are made for so many bytes at a time, and ranges are this long. */
export const BATCH_BYTES: number = 512 * 1024
/** Blobs that are shorter are not worth a second connection. */
const SHARED_BYTES = 32 * BATCH_BYTES
/** Over so many bytes it is found out whether a reader waits for its connection. */
const TRIAL_BYTES = 8 * BATCH_BYTES
/** So many times may what is known of a blob come again from a registry without ranges. */
const MOST_SKIPS = 3
/** Longest time without a single byte before a connection counts as dead. */
const IDLE_MS = 30_000

export interface BlobToRead {
  readonly registry: RegistryClient
  readonly repository: ImageReference
  readonly descriptor: Descriptor
  /** For messages. */
  readonly what: string
  readonly buffers: Buffers
  /** Connections of the whole pull; one of them is held while a body is read. */
  readonly slots: Slots
  /** For this blob. */
  readonly connections: number
  /** When the first of them is joined by the others. */
  readonly spread: Spread
  readonly noProgressMs: number
  readonly signal: AbortSignal
  readonly onTrouble: (trouble: Trouble) => void
  /** A response with bytes of it begins. */
  readonly onOpen?: () => void
}

/** `when-waiting`: when its reader spends more time waiting than working. */
export type Spread = 'when-waiting' | 'at-once'

/** A registry that answers a range with the whole blob, or with another range. */
class RangesIgnored extends UnavailableError {
  constructor(what: string) {
    super('ERR_REGISTRY_RANGE', `${what}: the registry does not serve ranges`)
  }
}

/**
 * From byte `from` on. Errors: those of `RegistryClient.openBlob` that do not pass, or still last after `noProgressMs`
 * without progress; ERR_REGISTRY_SLOW.
 */
export async function* readBlob(blob: BlobToRead, from: number): AsyncGenerator<Batch> {
  const patience = new Patience(blob)
  const { size } = blob.descriptor
  let at = from
  if (blob.connections > 1 && blob.spread === 'when-waiting') {
    for await (const batch of whileBusy(inSequence(blob, { from, to: size }, patience), size - from)) {
      at += batch.bytes.byteLength
      yield batch
    }
  }
  if (blob.connections > 1 && size - at >= SHARED_BYTES) {
    try {
      for await (const batch of inRanges(blob, { from: at, to: size }, patience)) {
        at += batch.bytes.byteLength
        yield batch
      }
    } catch (error) {
      if (!(error instanceof RangesIgnored)) throw error
      blob.onTrouble({ error, retryInMs: 0 })
    }
  }
  if (at < size) yield* inSequence(blob, { from: at, to: size }, patience)
}

/** Ends early when its reader turns out to be waiting and enough is left to share. */
async function* whileBusy(batches: AsyncIterable<Batch>, bytes: number): AsyncGenerator<Batch> {
  const pace = new Pace(TRIAL_BYTES)
  let left = bytes
  for await (const batch of batches) {
    left -= batch.bytes.byteLength
    pace.came(batch.bytes.byteLength)
    yield batch
    if (pace.taken() && left >= SHARED_BYTES) return
  }
}

/** Over one connection; it is held up while nobody takes what came. */
async function* inSequence(blob: BlobToRead, { from, to }: ByteRange, patience: Patience): AsyncGenerator<Batch> {
  const { buffers, signal } = blob
  const abort = new AbortController()
  const queue = new BatchQueue()
  let buffer = buffers.take()
  let filled = 0
  const pass = (): Promise<void> | undefined => {
    const full = buffer
    const batch = { bytes: full.subarray(0, filled), release: () => buffers.give(full) }
    buffer = buffers.take()
    filled = 0
    return queue.put(batch)
  }
  const put = (chunk: Uint8Array): Promise<void> | undefined => {
    const taken = Math.min(chunk.byteLength, buffer.byteLength - filled)
    buffer.set(chunk.subarray(0, taken), filled)
    filled += taken
    if (filled < buffer.byteLength) return undefined
    const busy = pass()
    const rest = chunk.subarray(taken)
    if (rest.byteLength === 0) return busy
    return busy === undefined ? put(rest) : busy.then(() => put(rest))
  }
  const within = { ...blob, signal: AbortSignal.any([signal, abort.signal]) }
  const reading = readRange(within, { from, to }, patience, { wholeWillDo: true, put })
  // Its error is thrown by the queue.
  reading.then(
    () => {
      if (filled > 0) void pass()
      queue.end()
    },
    (error: unknown) => queue.end(error),
  )
  try {
    yield* queue
  } finally {
    abort.abort()
    queue.drop()
    await reading.catch(() => {})
    buffers.give(buffer)
  }
}

/** As many ranges under way as there are connections; handed out in order. */
async function* inRanges(blob: BlobToRead, { from, to }: ByteRange, patience: Patience): AsyncGenerator<Batch> {
  const abort = new AbortController()
  const within = { ...blob, signal: AbortSignal.any([blob.signal, abort.signal]) }
  const running: Promise<Batch>[] = []
  let next = from
  const start = (): void => {
    const range = { from: next, to: Math.min(next + BATCH_BYTES, to) }
    next = range.to
    const batch = fetchRange(within, range, patience)
    // Its error is seen when its turn comes; until then it must not count as unhandled.
    batch.catch(() => {})
    running.push(batch)
  }
  try {
    for (;;) {
      while (running.length < blob.connections && next < to) start()
      const first = running.shift()
      if (first === undefined) return
      yield await first
    }
  } finally {
    abort.abort()
    for (const result of await Promise.allSettled(running)) {
      if (result.status === 'fulfilled') result.value.release()
    }
  }
}

async function fetchRange(blob: BlobToRead, range: ByteRange, patience: Patience): Promise<Batch> {
  const buffer = blob.buffers.take()
  const release = (): void => blob.buffers.give(buffer)
  try {
    let filled = 0
    const put = (chunk: Uint8Array): undefined => {
      buffer.set(chunk, filled)
      filled += chunk.byteLength
    }
    await readRange(blob, range, patience, { wholeWillDo: false, put })
    patience.done()
    return { bytes: buffer.subarray(0, filled), release }
  } catch (error) {
    release()
    throw error
  }
}

interface Target {
  /** The whole blob may come instead of the range. */
  readonly wholeWillDo: boolean
  readonly put: BodySink
}

/** Exactly the bytes of the range, over as many connections one after the other as it takes. */
async function readRange(
  blob: BlobToRead,
  { from, to }: ByteRange,
  patience: Patience,
  { wholeWillDo, put }: Target,
): Promise<void> {
  const { registry, repository, descriptor, what, signal, slots, noProgressMs } = blob
  // Short enough to leave time for another try.
  const options = { what, signal, idleTimeoutMs: Math.min(IDLE_MS, Math.ceil(noProgressMs / 3)) }
  let at = from
  let ranged = true
  let skipped = 0
  while (at < to) {
    const leave = await slots.acquire(signal)
    try {
      const asked = ranged ? { range: { from: at, to } } : {}
      const { body, range } = await registry.openBlob(repository, descriptor, { ...options, ...asked })
      blob.onOpen?.()
      if (!wholeWillDo && (range.from !== at || range.to !== to)) {
        await body[Symbol.asyncIterator]().return?.()
        throw new RangesIgnored(what)
      }
      let skip = at - range.from
      await pour(body, (chunk) => {
        const wanted = chunk.subarray(Math.min(skip, chunk.byteLength))
        const passed = chunk.byteLength - wanted.byteLength
        skip -= passed
        skipped += passed
        // What was there before is no progress, but going past it takes its time; not without end.
        if (passed > 0 && skipped <= MOST_SKIPS * descriptor.size) patience.received(passed)
        if (wanted.byteLength === 0) return undefined
        at += wanted.byteLength
        patience.received(wanted.byteLength)
        return put(wanted)
      })
    } catch (error) {
      leave()
      const mishandled = error instanceof CaissonError && error.code === 'ERR_REGISTRY_RANGE'
      if (mishandled && !wholeWillDo) throw new RangesIgnored(what)
      // What is known already is skipped then.
      if (mishandled) ranged = false
      await patience.pause(error)
    } finally {
      leave()
    }
  }
}
