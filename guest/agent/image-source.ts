/** Images by digest: pulled once, verified under the tenant's image policy, kept on scratch, told about as they come. */

import type { LayerCipher } from '#image/encryption/cipher'
import { decryptionSource } from '#image/encryption/decryption-source'
import { packetUnwrapper } from '#image/encryption/unwrap'
import type { LayerEngine } from '#image/layer/engine'
import { FileLayerStore } from '#image/layer/file-store'
import { ConfinedIndexer, type ImageIndexer } from '#image/layer/indexer'
import { DEFAULT_LIMITS } from '#image/limits'
import type { SignaturePolicy } from '#image/policy/policy'
import type { SignatureEngines } from '#image/policy/requirement'
import type { PullProgress } from '#image/pull/progress'
import { type PulledImage, pullImage } from '#image/pull/pull-image'
import type { CredentialSource } from '#image/registry/authorization'
import { RegistryClient } from '#image/registry/client'
import type { RegistryRoute } from '#image/registry/registries-conf'
import { lookasideSignatures } from '#image/signature/lookaside'
import type { LookasideConfig } from '#image/signature/registries-d'
import { MalformedError } from '#protocol/errors'
import type { HttpTransport } from '#protocol/http-transport'
import type { Platform } from '../platform/platform.ts'

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
  readonly platform: Pick<Platform, 'crypto' | 'files' | 'processes'>
  readonly tools: ImageTools
  /** Trusts the registries' roots and nothing else. */
  readonly http: HttpTransport
  readonly policy: SignaturePolicy
  readonly credentials: CredentialSource | undefined
  /** Where OpenPGP signatures are kept. Undefined: nowhere. */
  readonly lookaside: LookasideConfig | undefined
  /** Mirrors, locations and blocks. Undefined: every registry by its own name. */
  readonly route: RegistryRoute | undefined
  /** A resource of the verifier: keys that the image policy names. */
  readonly resource: (path: string) => Promise<Uint8Array>
  /** Directory on scratch for layers. */
  readonly folder: string
  /** Directory in memory for catalogues and indexes, some 250 bytes per file of an image. */
  readonly indexFolder: string
}

export class ImageSource {
  readonly #options: ImageSourceOptions
  readonly #registry: RegistryClient
  readonly #store: FileLayerStore
  readonly #indexer: ImageIndexer
  readonly #pulls = new Map<string, Promise<PulledImage>>()

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

  /** @param reference repository@digest. The same image is pulled once, also for callers at the same time. */
  pull(reference: string, onProgress: (progress: PullProgress) => void): Promise<PulledImage> {
    const known = this.#pulls.get(reference)
    if (known !== undefined) return known
    const pull = this.#pull(reference, onProgress)
    this.#pulls.set(reference, pull)
    // A failure is not remembered: the registry may answer better next time.
    pull.catch(() => this.#pulls.delete(reference))
    return pull
  }

  #pull(reference: string, onProgress: (progress: PullProgress) => void): Promise<PulledImage> {
    const { platform, tools, http, policy, lookaside: config, resource } = this.#options
    return pullImage({
      reference,
      registry: this.#registry,
      signaturePolicy: policy,
      resolveKey: (path) => resource(resourcePath(path)),
      // The verifier releases keys to guests that it attested, and to those of this image's policy alone.
      decryptionOf: decryptionSource([packetUnwrapper(tools.cipher, (uri) => resource(resourcePath(uri)))]),
      ...(tools.engines === undefined ? {} : { engines: tools.engines }),
      ...(config === undefined ? {} : { lookaside: lookasideSignatures({ config, http, limits: DEFAULT_LIMITS }) }),
      crypto: platform.crypto,
      store: this.#store,
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
