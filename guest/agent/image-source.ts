/** Images by digest: pulled once, verified under the tenant's image policy, kept on scratch, told about as they come. */
import type { LayerCipher } from '#image/encryption/cipher'
import { decryptionSource } from '#image/encryption/decryption-source'
import { packetUnwrapper } from '#image/encryption/unwrap'
import type { LayerEngine } from '#image/layer/engine'
import { FileLayerStore, type LayerLease } from '#image/layer/file-store'
import { ConfinedIndexer, type ImageIndexer } from '#image/layer/indexer'
import { DEFAULT_LIMITS } from '#image/limits'
import type { SignaturePolicy } from '#image/policy/policy'
import type { SignatureEngines } from '#image/policy/requirement'
import { patiently, type Trouble } from '#image/pull/patience'
import { type PulledImage, pullImage } from '#image/pull/pull-image'
import type { CredentialSource } from '#image/registry/authorization'
import { RegistryClient } from '#image/registry/client'
import type { RegistryRoute } from '#image/registry/registries-conf'
import { lookasideSignatures } from '#image/signature/lookaside'
import type { LookasideConfig } from '#image/signature/registries-d'
import type { SignerRule } from '#policies/image-rule'
import { CaissonError, MalformedError } from '#protocol/errors'
import type { HttpTransport } from '#protocol/http-transport'
import type { PullBounds } from '#protocol/initdata'
import { formatReference, parseReference, withDigest } from '#protocol/oci/reference'
import type { Platform } from '../platform/platform.ts'
import { requiredSignature } from './image-signers.ts'
import { type ProgressListener, SharedProgress } from './shared-progress.ts'

export interface ImageTools {
  readonly engine: LayerEngine
  /** Path of caisson-index. */
  readonly indexer: string
  /** Opens the keys of encrypted layers. */
  readonly cipher: LayerCipher
  /** OpenPGP and sigstore bundles, loaded when a policy asks for them. */
  readonly engines?: SignatureEngines
}

export interface ImageSourceOptions {
  readonly platform: Pick<Platform, 'crypto' | 'files' | 'processes' | 'storage'>
  readonly tools: ImageTools
  /** Trusts the registries' roots and nothing else. */
  readonly http: HttpTransport
  readonly policy: SignaturePolicy
  readonly credentials: CredentialSource | undefined
  /** Where OpenPGP signatures are kept. Undefined: nowhere. */
  readonly lookaside: LookasideConfig | undefined
  /** Mirrors, locations and blocks. Undefined: every registry by its own name. */
  readonly route: RegistryRoute | undefined
  /** Undefined: the engine's own. */
  readonly pulls: PullBounds | undefined
  /** A resource of the verifier: keys that the image policy names. */
  readonly resource: (path: string) => Promise<Uint8Array>
  /** Directory on scratch for layers. */
  readonly folder: string
  /** Directory in memory for catalogues and indexes, some 250 bytes per file of an image. */
  readonly indexFolder: string
}

/** An image that stays where it is until it is released. */
export interface HeldImage {
  readonly image: PulledImage
  readonly release: () => void
}

/** Signers of whom one must have signed, for a container whose rule names no digest. */
export interface RequiredSigners {
  /** For messages: `containers.web.signedBy`. */
  readonly place: string
  readonly signers: readonly SignerRule[]
}

const RESOLVE_NO_PROGRESS_MS = 10_000

interface Entry {
  readonly lease: LayerLease
  readonly progress: SharedProgress
  readonly pulled: Promise<PulledImage>
  users: number
}

interface Wanted {
  readonly reference: string
  readonly signers: RequiredSigners | undefined
}

export class ImageSource {
  readonly #options: ImageSourceOptions
  readonly #registry: RegistryClient
  readonly #store: FileLayerStore
  readonly #indexer: ImageIndexer
  /** By reference and signers; those that were not used for the longest time come first. */
  readonly #entries = new Map<string, Entry>()

  constructor(options: ImageSourceOptions) {
    const { platform, tools, http, credentials, route, folder, indexFolder } = options
    this.#options = options
    this.#registry = new RegistryClient({
      http,
      crypto: platform.crypto,
      ...(credentials === undefined ? {} : { credentials }),
      ...(route === undefined ? {} : { route }),
    })
    this.#store = new FileLayerStore({ folder, indexFolder, remove: (path) => platform.files.remove(path) })
    this.#indexer = new ConfinedIndexer({
      run: (path, args, { timeoutMs }) => platform.processes.run(path, args, { timeoutMs }),
      program: tools.indexer,
    })
  }

  /**
   * The same image is pulled once, also for callers at the same time, and stays for the next one until its room is needed.
   *
   * @param reference repository@digest; with `signers` also repository:tag, of which the registry says once what it means
   */
  async pull(reference: string, onProgress: ProgressListener, signers?: RequiredSigners): Promise<HeldImage> {
    const wanted = signers === undefined ? reference : await this.#pinned(reference, onProgress)
    // Who signed for one container has not signed for another.
    const name = signers === undefined ? wanted : JSON.stringify([wanted, signers])
    const entry = this.#entries.get(name) ?? this.#begin(name, wanted, signers)
    entry.users++
    const leave = entry.progress.join(onProgress)
    const release = () => {
      entry.users--
      // Last in line to go.
      if (this.#entries.delete(name)) this.#entries.set(name, entry)
    }
    try {
      const image = await entry.pulled
      return { image, release: once(release) }
    } catch (error) {
      entry.users--
      throw error
    } finally {
      leave()
    }
  }

  /**
   * Images that will be asked for, one after the other. Who asks for one meanwhile joins in; what fails here is tried again
   * when somebody wants it, who is then told.
   */
  async prefetch(references: readonly string[], onProgress: ProgressListener): Promise<void> {
    for (const reference of new Set(references)) {
      await this.pull(reference, onProgress).then(
        ({ release }) => release(),
        () => undefined,
      )
    }
  }

  /** The registry may name any digest: what it is, its signature says. */
  async #pinned(reference: string, onProgress: ProgressListener): Promise<string> {
    const asked = parseReference(reference)
    if (asked.digest !== undefined) return reference
    const patience = {
      noProgressMs: RESOLVE_NO_PROGRESS_MS,
      signal: new AbortController().signal,
      onTrouble: ({ error, retryInMs }: Trouble) =>
        onProgress({ type: 'trouble', layer: undefined, code: error.code, why: error.message, retryInMs }),
    }
    const { digest } = await patiently(patience, () => this.#registry.fetchManifest(asked))
    return formatReference(withDigest(asked, digest))
  }

  #begin(name: string, reference: string, signers: RequiredSigners | undefined): Entry {
    const lease = this.#store.lease((wanted) => this.#makeRoom(wanted))
    const progress = new SharedProgress()
    const pulled = this.#pullWithRoom({ reference, signers }, lease, progress.report)
    const entry: Entry = { lease, progress, pulled, users: 0 }
    this.#entries.set(name, entry)
    // A failure is not remembered: the registry may answer better next time.
    pulled.catch(() => {
      lease.release()
      this.#entries.delete(name)
    })
    return entry
  }

  /** How much a layer takes is known when it is there: so it may turn out late that there is too little room. */
  async #pullWithRoom(wanted: Wanted, store: LayerLease, onProgress: ProgressListener): Promise<PulledImage> {
    try {
      return await this.#pull(wanted, store, onProgress)
    } catch (error) {
      const isFull = error instanceof CaissonError && error.code === 'ERR_LAYER_DISK_FULL'
      if (!isFull || !this.#hasIdle()) throw error
      await this.#makeRoom(Number.POSITIVE_INFINITY)
      return await this.#pull(wanted, store, onProgress)
    }
  }

  #hasIdle(): boolean {
    return [...this.#entries.values()].some(({ users }) => users === 0)
  }

  /** Drops images that nobody uses, the oldest first, while less than `wanted` bytes are free. */
  async #makeRoom(wanted: number): Promise<number> {
    const free = () => this.#options.platform.storage.freeBytes(this.#options.folder)
    if ((await free()) >= wanted) return await free()
    // What failed pulls left.
    await this.#store.collect()
    for (const [reference, { users, lease }] of [...this.#entries]) {
      if (users > 0 || this.#entries.get(reference)?.users !== 0 || (await free()) >= wanted) continue
      this.#entries.delete(reference)
      lease.release()
      await this.#store.collect()
    }
    return await free()
  }

  #pull({ reference, signers }: Wanted, store: LayerLease, onProgress: ProgressListener): Promise<PulledImage> {
    const { platform, tools, http, policy, lookaside: config, resource, pulls } = this.#options
    return pullImage({
      reference,
      registry: this.#registry,
      signaturePolicy: policy,
      ...(signers === undefined ? {} : { requiredSignature: requiredSignature(signers, tools.engines !== undefined) }),
      resolveKey: (path) => resource(resourcePath(path)),
      // The verifier releases keys to guests that it attested, and to those of this image's policy alone.
      decryptionOf: decryptionSource([packetUnwrapper(tools.cipher, (uri) => resource(resourcePath(uri)))]),
      ...(tools.engines === undefined ? {} : { engines: tools.engines }),
      ...(config === undefined ? {} : { lookaside: lookasideSignatures({ config, http, limits: DEFAULT_LIMITS }) }),
      crypto: platform.crypto,
      ...(pulls?.layers === undefined ? {} : { parallelLayers: pulls.layers }),
      ...(pulls?.connections === undefined ? {} : { connections: pulls.connections }),
      store,
      engine: tools.engine,
      indexer: this.#indexer,
      onProgress,
    })
  }
}

/** "kbs:///repository/type/tag" to its path. */
function resourcePath(uri: string): string {
  const match = /^kbs:\/\/\/(.+)$/.exec(uri)
  if (match?.[1] !== undefined) return match[1]
  throw new MalformedError('ERR_IMAGE_POLICY_KEY', `a key is named by ${JSON.stringify(uri.slice(0, 200))}`, {
    hint: 'Inside the guest there are no files of yours: use keyData, or a kbs:/// resource.',
  })
}

function once(work: () => void): () => void {
  let done = false
  return () => {
    if (!done) work()
    done = true
  }
}
