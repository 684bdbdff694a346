/**
 * One layer: fetched, decrypted, decompressed, hashed twice, stored, catalogued and sealed in one pass over the network
 * stream. Visible in the store only when all digests hold.
 */
import { MalformedError, UnavailableError, UnverifiedError } from '#protocol/errors'
import type { Descriptor } from '#protocol/oci/descriptor'
import { type Digest, digestAlgorithm, digestHex } from '#protocol/oci/digest'
import { type Compression, layerCompression } from '#protocol/oci/media-types'
import type { ImageReference } from '#protocol/oci/reference'
import type { FinishedLayer, LayerDecryption, LayerEngine, LayerWriter } from '../layer/engine.ts'
import type { LayerPart, LayerStore, StoredLayer } from '../layer/store.ts'
import type { ImageLimits } from '../limits.ts'
import type { RegistryClient } from '../registry/client.ts'
import type { Batch } from './batch-queue.ts'
import type { TarBudget } from './budget.ts'
import type { Buffers, Slots } from './buffers.ts'
import type { Trouble } from './patience.ts'
import type { PullProgress } from './progress.ts'
import { readBlob, type Spread } from './read-blob.ts'
import { unsupportedLayer } from './unsupported.ts'

export interface LayerJob {
  readonly layer: number
  readonly descriptor: Descriptor
  /** From the verified configuration. */
  readonly diffId: Digest
}

export interface LayerContext {
  readonly registry: RegistryClient
  readonly repository: ImageReference
  readonly store: LayerStore
  readonly engine: LayerEngine
  readonly limits: ImageLimits
  readonly budget: TarBudget
  readonly decryptionOf: DecryptionSource | undefined
  readonly buffers: Buffers
  readonly slots: Slots
  readonly connectionsPerLayer: number
  readonly spread: Spread
  readonly noProgressMs: number
  readonly onProgress: (progress: PullProgress) => void
  readonly signal: AbortSignal
}

/**
 * The key of an encrypted layer, by its descriptor's annotations; asked for after the signature policy has admitted the
 * image and before the layer is requested. Throws when there is none to be had.
 */
export type DecryptionSource = (
  descriptor: Descriptor,
  context: { readonly what: string; readonly signal: AbortSignal },
) => Promise<LayerDecryption>

/** Suffix of the media types of encrypted layers; the rest is the media type of what was encrypted. */
const ENCRYPTED = '+encrypted'

/** @param onArrived all bytes of the layer are here, and the last of them are being worked on */
export async function fetchLayer(
  job: LayerJob,
  context: LayerContext,
  onArrived: () => void = () => {},
): Promise<StoredLayer> {
  const present = await context.store.find(job.diffId)
  if (present !== undefined) {
    report(job, context, 'present', job.descriptor.size, present.tarBytes)
    return present
  }
  const what = `layer ${job.layer + 1} (${job.descriptor.digest})`
  const { mediaType } = job.descriptor
  const encrypted = mediaType.endsWith(ENCRYPTED) && context.decryptionOf !== undefined
  const compression = layerCompression(encrypted ? mediaType.slice(0, -ENCRYPTED.length) : mediaType)
  if (compression === undefined) throw unsupportedLayer(what, mediaType)
  for (const digest of [job.descriptor.digest, job.diffId]) {
    if (digestAlgorithm(digest) !== 'sha256') throw unsupportedLayer(what, `digest ${digest.slice(0, 20)}…`)
  }
  const decryption = encrypted
    ? await context.decryptionOf?.(job.descriptor, { what, signal: context.signal })
    : undefined
  const parts = { what, compression, decryption, onArrived }
  const first: Attempt = { isKept: false, answers: 0, whole: false }
  try {
    return await attempt(job, context, parts, first)
  } catch (error) {
    // What was put together may have one wrong piece, and what was kept may be of a registry that was wrong then: one whole
    // answer decides.
    const isPut = first.isKept || first.answers > 1
    const isWrong = error instanceof UnverifiedError || error instanceof MalformedError
    if (!isPut || !isWrong || context.signal.aborted) throw error
    trouble(job, context)({ error, retryInMs: 0 })
    context.budget.add(-(first.tarBytes ?? 0))
    return await attempt(job, context, parts, { isKept: false, answers: 0, whole: true })
  } finally {
    decryption?.key.fill(0)
  }
}

interface Attempt {
  /** Some of the layer is what an earlier pull left. */
  isKept: boolean
  /** That the rest was put together from. */
  answers: number
  /** Over one connection, and nothing of what an earlier pull left. */
  readonly whole: boolean
  tarBytes?: number
}

interface LayerParts {
  readonly what: string
  readonly compression: Compression
  readonly decryption: LayerDecryption | undefined
  readonly onArrived: () => void
}

async function attempt(
  job: LayerJob,
  context: LayerContext,
  { what, compression, decryption, onArrived }: LayerParts,
  state: Attempt,
): Promise<StoredLayer> {
  const { descriptor, diffId } = job
  const draft = await context.store.begin(diffId)
  const part = await context.store.beginPart?.(descriptor.digest, descriptor.size)
  try {
    if (state.whole) await part?.restart()
    const writer = context.engine.openLayer({
      path: draft.tarPath,
      cataloguePath: draft.cataloguePath,
      compression,
      // One salt per content: the same layer has the same root everywhere, and no two layers share a hash.
      salt: digestHex(diffId),
      maxTarBytes: context.limits.maxLayerBytes,
      maxRatio: context.limits.maxRatio,
      what,
      decryption,
    })
    const finished = await stream(job, context, { writer, what, part, state, onArrived })
    requireDigest(what, 'content', finished.compressedDigest, descriptor.digest)
    requireDigest(
      what,
      'content before encryption',
      finished.plainDigest,
      decryption?.plainDigest ?? finished.plainDigest,
    )
    requireDigest(what, 'uncompressed content', finished.diffId, diffId)
    context.signal.throwIfAborted()
    const stored = await draft.commit({ tarBytes: finished.tarBytes, tarVerity: finished.verity })
    await part?.remove()
    report(job, context, 'done', descriptor.size, finished.tarBytes)
    return stored
  } catch (error) {
    await draft.discard()
    // What a later pull can go on from stays; bytes that turned out wrong do not.
    const useful = error instanceof UnavailableError || context.signal.aborted
    await (useful ? part?.close() : part?.remove())
    throw error
  }
}

interface Streaming {
  readonly writer: LayerWriter
  readonly what: string
  readonly part: LayerPart | undefined
  readonly state: Attempt
  readonly onArrived: () => void
}

/** Feeds the writer batch by batch: while one is being worked on, the next fills from the network. */
async function stream(job: LayerJob, context: LayerContext, streaming: Streaming): Promise<FinishedLayer> {
  const { writer, part } = streaming
  const cancel = (): void => writer.cancel()
  context.signal.addEventListener('abort', cancel, { once: true })
  let running: Promise<void> = Promise.resolve()
  try {
    let fetched = 0
    const flush = async ({ bytes, release }: Batch, isKept: boolean): Promise<void> => {
      // Both read the same bytes: neither waits for the other, and the buffer is free when both are done.
      const kept = isKept ? undefined : part?.append(bytes)
      try {
        const [total] = await Promise.all([writer.write(bytes), kept])
        fetched += bytes.byteLength
        context.budget.add(total - (streaming.state.tarBytes ?? 0))
        streaming.state.tarBytes = total
        report(job, context, 'fetching', fetched, total)
      } finally {
        await kept?.catch(() => {})
        release()
      }
    }
    for await (const { batch, isKept } of batches(job, context, streaming)) {
      await running
      running = flush(batch, isKept)
      // Its error is seen at the next `await running`; until then it must not count as unhandled.
      running.catch(() => {})
    }
    streaming.onArrived()
    await running
    return await writer.finish()
  } catch (error) {
    // The file must be at rest before the draft is removed.
    writer.cancel()
    await running.catch(() => {})
    context.signal.throwIfAborted()
    throw error
  } finally {
    context.signal.removeEventListener('abort', cancel)
  }
}

interface Arrived {
  readonly batch: Batch
  /** It comes from what an earlier pull left. */
  readonly isKept: boolean
}

/** What an earlier pull left of the layer, then the registry's. */
async function* batches(
  job: LayerJob,
  context: LayerContext,
  { what, part, state }: Streaming,
): AsyncGenerator<Arrived> {
  let from = 0
  for await (const bytes of part?.read() ?? []) {
    from += bytes.byteLength
    state.isKept = true
    yield { batch: { bytes, release: () => {} }, isKept: true }
  }
  const blob = readBlob(
    {
      ...context,
      descriptor: job.descriptor,
      what,
      connections: state.whole ? 1 : context.connectionsPerLayer,
      onTrouble: trouble(job, context),
      onOpen: () => state.answers++,
    },
    from,
  )
  for await (const batch of blob) yield { batch, isKept: false }
}

function trouble(job: LayerJob, context: LayerContext): (trouble: Trouble) => void {
  return ({ error, retryInMs }) =>
    context.onProgress({ type: 'trouble', layer: job.layer, code: error.code, why: error.message, retryInMs })
}

function requireDigest(what: string, part: string, actual: Digest, expected: Digest): void {
  if (actual === expected) return
  throw new UnverifiedError('ERR_DIGEST_MISMATCH', `${what}: its ${part} is ${actual}, expected ${expected}`, {
    hint: 'The bytes were changed in the registry or on the way. Push the image again from a trusted source.',
  })
}

function report(
  job: LayerJob,
  context: LayerContext,
  state: 'present' | 'fetching' | 'done',
  fetchedBytes: number,
  tarBytes: number,
): void {
  const { layer, descriptor } = job
  const { digest, size: compressedBytes } = descriptor
  context.onProgress({ type: 'layer', layer, digest, state, fetchedBytes, compressedBytes, tarBytes })
}
