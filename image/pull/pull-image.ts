/**
 * Pulls one image: resolve, judge, then fetch. Every byte that decides anything is verified against the digest it was
 * asked for by, and no layer is requested before the signature policy has admitted the manifest.
 */
import type { CryptoProvider } from '#protocol/crypto-provider'
import { MalformedError, UnavailableError } from '#protocol/errors'
import { type Digest, digestHex, parseDigest } from '#protocol/oci/digest'
import { type ImageReference, parseReference } from '#protocol/oci/reference'
import { chainId } from '../layer/chain-id.ts'
import type { LayerEngine } from '../layer/engine.ts'
import type { ImageIndexer } from '../layer/indexer.ts'
import type { LayerStore, StoredIndex, StoredLayer } from '../layer/store.ts'
import { DEFAULT_LIMITS, type ImageLimits } from '../limits.ts'
import type { ImageConfig } from '../manifest/config.ts'
import type { ImageManifest } from '../manifest/manifest.ts'
import { LINUX_AMD64, type WantedPlatform } from '../manifest/platform.ts'
import {
  evaluateSignaturePolicy,
  type KeyResolver,
  type RequiredSignature,
  requireSignature,
  type SignatureEngines,
} from '../policy/evaluate.ts'
import type { SignaturePolicy } from '../policy/policy.ts'
import type { RegistryClient } from '../registry/client.ts'
import { type LookasideSource, signaturesIn } from '../signature/cosign.ts'
import { TarBudget } from './budget.ts'
import { Buffers, Slots } from './buffers.ts'
import type { DecryptionSource, LayerJob } from './fetch-layer.ts'
import { fetchLayers } from './fetch-layers.ts'
import { type PatienceOptions, patiently } from './patience.ts'
import type { PullProgress } from './progress.ts'
import { BATCH_BYTES, type Spread } from './read-blob.ts'
import { fetchImageConfig, resolveImage } from './resolve-image.ts'

const DEFAULT_CONNECTIONS = 4
const DEFAULT_NO_PROGRESS_MS = 60_000
/** Documents are small and come first: who waits for them wants to know soon that there is nobody. */
const DOCUMENTS_NO_PROGRESS_MS = 10_000

/** Of tars, with their hash trees, to what they are compressed: mostly less. */
const USUAL_EXPANSION = 4

export interface PullOptions {
  /** Tag or digest; where there is a digest, the tag is not even looked at. */
  readonly reference: string | ImageReference
  readonly registry: RegistryClient
  /** Undefined refuses every image. */
  readonly signaturePolicy: SignaturePolicy | undefined
  /** Must hold besides. Default: nothing. */
  readonly requiredSignature?: RequiredSignature
  /** Fetches keys that the policy names by path or `kbs:///` URI. Default: none can be had. */
  readonly resolveKey?: KeyResolver
  /** Default: policies that ask for OpenPGP or sigstore bundles refuse. */
  readonly engines?: SignatureEngines
  /** Where OpenPGP signatures are kept. Default: nowhere. */
  readonly lookaside?: LookasideSource
  readonly crypto: CryptoProvider
  readonly store: LayerStore
  readonly engine: LayerEngine
  readonly indexer: ImageIndexer
  /** Keys of encrypted layers. Default: none, and encrypted layers are refused. */
  readonly decryptionOf?: DecryptionSource
  readonly platform?: WantedPlatform
  readonly limits?: Partial<ImageLimits>
  /** Layers at a time. Default 2. */
  readonly parallelLayers?: number
  /** Connections to the registry, all layers together. Default 4. */
  readonly connections?: number
  /** When a large layer takes several of them. Default: when one does not keep the pull busy. */
  readonly spread?: Spread
  /** The longest stretch without progress before the pull gives up, milliseconds. Default 60000. */
  readonly noProgressMs?: number
  readonly onProgress?: (progress: PullProgress) => void
  readonly signal?: AbortSignal
}

export interface PulledImage {
  readonly reference: ImageReference
  /** Of the manifest whose layers these are: never of an index. */
  readonly manifestDigest: Digest
  /** Of the index it was selected from, if there was one. */
  readonly indexDigest: Digest | undefined
  readonly configDigest: Digest
  readonly config: ImageConfig
  /** Manifest and configuration as they came, verified. */
  readonly documents: { readonly manifest: Uint8Array; readonly config: Uint8Array }
  /** Base first; equal layers are the same object. */
  readonly layers: readonly StoredLayer[]
  /** What the layers show, one upon the other. */
  readonly index: StoredIndex
  /** Which rule of the signature policy admitted it. */
  readonly admittedBy: string
}

export async function pullImage(options: PullOptions): Promise<PulledImage> {
  const { registry, crypto, signal } = options
  const limits: ImageLimits = { ...DEFAULT_LIMITS, ...options.limits }
  const platform = options.platform ?? LINUX_AMD64
  const onProgress = options.onProgress ?? (() => {})
  const { connections = DEFAULT_CONNECTIONS, noProgressMs = DEFAULT_NO_PROGRESS_MS } = options
  const patience: PatienceOptions = {
    noProgressMs: Math.min(noProgressMs, DOCUMENTS_NO_PROGRESS_MS),
    signal: signal ?? new AbortController().signal,
    onTrouble: ({ error, retryInMs }) =>
      onProgress({ type: 'trouble', layer: undefined, code: error.code, why: error.message, retryInMs }),
  }
  const reference =
    typeof options.reference === 'string' ? parseReference(options.reference, 'latest') : options.reference

  const image = await patiently(patience, () => resolveImage(registry, reference, { platform, signal }))
  const { manifest, manifestDigest, indexDigest } = image
  checkSizes(manifest, limits)
  const compressedBytes = manifest.layers.reduce((sum, { size }) => sum + size, 0)
  onProgress({ type: 'resolved', manifestDigest, layers: manifest.layers.length, compressedBytes })

  const judged = {
    reference,
    digests: indexDigest === undefined ? [manifestDigest] : [manifestDigest, indexDigest],
    signaturesOf: signaturesIn(registry, reference, { limits, signal, lookaside: options.lookaside }),
    resolveKey: options.resolveKey ?? noKeys,
    engines: options.engines,
    crypto,
  }
  const { place } = await patiently(patience, () =>
    evaluateSignaturePolicy({ ...judged, policy: options.signaturePolicy }),
  )
  const { requiredSignature } = options
  if (requiredSignature !== undefined) await patiently(patience, () => requireSignature(requiredSignature, judged))
  onProgress({ type: 'judged', place })

  const { config, bytes: configBytes } = await patiently(patience, () =>
    fetchImageConfig(registry, image, { platform, limits, signal }),
  )
  const abort = new AbortController()
  const jobs = manifest.layers.map((descriptor, layer): LayerJob => {
    return { layer, descriptor, diffId: parseDigest(config.diffIds[layer], `diff id ${layer}`) }
  })
  await checkRoom(jobs, options.store)
  using buffers = new Buffers(BATCH_BYTES)
  const layers = await fetchLayers(jobs, options.parallelLayers ?? 2, abort, {
    registry,
    repository: reference,
    store: options.store,
    engine: options.engine,
    decryptionOf: options.decryptionOf,
    limits,
    budget: new TarBudget(limits.maxImageBytes),
    buffers,
    slots: new Slots(connections),
    connectionsPerLayer: connections,
    spread: options.spread ?? 'when-waiting',
    noProgressMs,
    onProgress,
    signal: signal === undefined ? abort.signal : AbortSignal.any([abort.signal, signal]),
  })
  buffers[Symbol.dispose]()
  const index = await indexLayers(layers, options, onProgress)
  return {
    reference,
    manifestDigest,
    indexDigest,
    configDigest: manifest.config.digest,
    config,
    documents: { manifest: image.manifestBytes, config: configBytes },
    layers,
    index,
    admittedBy: place,
  }
}

/** The index depends on the layers and nothing else: one that is there already is as good. */
async function indexLayers(
  layers: readonly StoredLayer[],
  { crypto, store, engine, indexer, signal }: PullOptions,
  onProgress: (progress: PullProgress) => void,
): Promise<StoredIndex> {
  const id = chainId(
    crypto,
    layers.map(({ diffId }) => diffId),
  )
  const present = await store.findIndex(id)
  if (present !== undefined) {
    onProgress({ type: 'index', state: 'present' })
    return present
  }
  onProgress({ type: 'index', state: 'indexing' })
  const draft = await store.beginIndex(id)
  try {
    const { indexPath } = draft
    const cataloguePaths = layers.map(({ cataloguePath }) => cataloguePath)
    const devices = await indexer.index({ cataloguePaths, indexPath, what: 'image' })
    const verity = await engine.appendVerity(indexPath, digestHex(id), 'index of the image')
    signal?.throwIfAborted()
    const stored = await draft.commit({ verity, devices })
    onProgress({ type: 'index', state: 'done' })
    return stored
  } catch (error) {
    await draft.discard()
    throw error
  }
}

/**
 * Before anything is fetched: what is missing takes at least as much room as it has in the registry. How much more it
 * takes is not known, since a manifest says nothing of layers without their compression.
 */
async function checkRoom(jobs: readonly LayerJob[], store: LayerStore): Promise<void> {
  if (store.freeBytes === undefined) return
  const present = await Promise.all(jobs.map(async ({ diffId }) => (await store.find(diffId)) !== undefined))
  const missing = jobs.filter((_, position) => present[position] === false)
  const needed = missing.reduce((sum, { descriptor }) => sum + descriptor.size, 0)
  const free = await store.freeBytes(needed * USUAL_EXPANSION)
  if (free === undefined || needed <= free) return
  throw new UnavailableError(
    'ERR_IMAGE_NO_ROOM',
    `the image needs more than ${needed} bytes for ${missing.length} layers, ${free} are free`,
    { hint: 'Make room, or give the pod a larger scratch disk: two to four times as much as the layers have.' },
  )
}

function checkSizes(manifest: ImageManifest, limits: ImageLimits): void {
  if (manifest.layers.length > limits.maxLayers) {
    throw new MalformedError(
      'ERR_IMAGE_LAYER_COUNT',
      `${manifest.layers.length} layers, at most ${limits.maxLayers} are accepted`,
    )
  }
  for (const [index, { size }] of manifest.layers.entries()) {
    if (size > limits.maxCompressedLayerBytes) {
      throw new MalformedError(
        'ERR_LAYER_TOO_LARGE',
        `layer ${index + 1}: ${size} bytes, at most ${limits.maxCompressedLayerBytes} are accepted`,
      )
    }
  }
}

const noKeys: KeyResolver = (path) =>
  Promise.reject(
    new MalformedError('ERR_IMAGE_KEY', `image policy: the key ${JSON.stringify(path)} cannot be had here`, {
      hint: 'Put the key into the policy itself as keyData.',
    }),
  )
