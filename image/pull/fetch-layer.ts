/**
 * One layer: fetched, decrypted, decompressed, hashed twice, stored, catalogued and sealed in one pass over the network
 * stream. Visible in the store only when all digests hold.
 */
import { UnverifiedError } from '#protocol/errors'
import type { Descriptor } from '#protocol/oci/descriptor'
import { type Digest, digestAlgorithm, digestHex } from '#protocol/oci/digest'
import { layerCompression } from '#protocol/oci/media-types'
import type { ImageReference } from '#protocol/oci/reference'
import type { FinishedLayer, LayerDecryption, LayerEngine, LayerWriter } from '../layer/engine.ts'
import type { LayerStore, StoredLayer } from '../layer/store.ts'
import type { ImageLimits } from '../limits.ts'
import type { RegistryClient } from '../registry/client.ts'
import type { TarBudget } from './budget.ts'
import type { PullProgress } from './progress.ts'
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

/** Network chunks are as small as a TLS record; native calls are made for this many bytes at a time. */
const BATCH_BYTES = 512 * 1024

export async function fetchLayer(job: LayerJob, context: LayerContext): Promise<StoredLayer> {
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
  const draft = await context.store.begin(job.diffId)
  try {
    const writer = context.engine.openLayer({
      path: draft.tarPath,
      cataloguePath: draft.cataloguePath,
      compression,
      // One salt per content: the same layer has the same root everywhere, and no two layers share a hash.
      salt: digestHex(job.diffId),
      maxTarBytes: context.limits.maxLayerBytes,
      maxRatio: context.limits.maxRatio,
      what,
      decryption,
    })
    const finished = await stream(job, context, { writer, what })
    requireDigest(what, 'content', finished.compressedDigest, job.descriptor.digest)
    requireDigest(
      what,
      'content before encryption',
      finished.plainDigest,
      decryption?.plainDigest ?? finished.plainDigest,
    )
    requireDigest(what, 'uncompressed content', finished.diffId, job.diffId)
    context.signal.throwIfAborted()
    const stored = await draft.commit({ tarBytes: finished.tarBytes, tarVerity: finished.verity })
    report(job, context, 'done', job.descriptor.size, finished.tarBytes)
    return stored
  } catch (error) {
    await draft.discard()
    throw error
  }
}

/** Feeds the writer batch by batch: while one is being worked on, the next fills from the network, and no more. */
async function stream(
  job: LayerJob,
  context: LayerContext,
  { writer, what }: { writer: LayerWriter; what: string },
): Promise<FinishedLayer> {
  const cancel = (): void => writer.cancel()
  context.signal.addEventListener('abort', cancel, { once: true })
  let running: Promise<void> = Promise.resolve()
  try {
    let fetched = 0
    let tarBytes = 0
    const flush = async (batch: Uint8Array): Promise<void> => {
      const total = await writer.write(batch)
      fetched += batch.byteLength
      context.budget.add(total - tarBytes)
      tarBytes = total
      report(job, context, 'fetching', fetched, tarBytes)
    }
    let [filling, spare] = [new Uint8Array(BATCH_BYTES), new Uint8Array(BATCH_BYTES)]
    let filled = 0
    const blob = await context.registry.openBlob(context.repository, job.descriptor, { what, signal: context.signal })
    for await (const chunk of blob.body) {
      for (let at = 0; at < chunk.byteLength; ) {
        const taken = Math.min(chunk.byteLength - at, BATCH_BYTES - filled)
        filling.set(chunk.subarray(at, at + taken), filled)
        filled += taken
        at += taken
        if (filled < BATCH_BYTES) continue
        await running
        running = flush(filling)
        // Its error is seen at the next `await running`; until then it must not count as unhandled.
        running.catch(() => {})
        ;[filling, spare, filled] = [spare, filling, 0]
      }
    }
    await running
    if (filled > 0) await flush(filling.subarray(0, filled))
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
