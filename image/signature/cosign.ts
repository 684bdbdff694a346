/**
 * Signatures that cosign stores in the image's own repository: `sha256-<hex>.sig` is a manifest whose every layer is one
 * signature, the payload as blob and the signature as annotation (cosign SIGNATURE_SPEC); the same manifest may instead
 * be a referrer of the image, and so may a sigstore bundle.
 */
import { MalformedError } from '#protocol/errors'
import { type Digest, digestAlgorithm, digestHex } from '#protocol/oci/digest'
import { type ImageReference, withDigest, withTag } from '#protocol/oci/reference'
import type { ImageLimits } from '../limits.ts'
import { type ImageManifest, parseManifest } from '../manifest/manifest.ts'
import type { RegistryClient } from '../registry/client.ts'
import { listReferrers } from '../registry/referrers.ts'
import { type FoundBundle, type FoundCosign, type FoundSignature, SIGNATURE_ANNOTATION } from './found.ts'
import { SIMPLE_SIGNING_TYPE } from './payload.ts'

export const COSIGN_ARTIFACT = 'application/vnd.dev.cosign.artifact.sig.v1+json'
export const BUNDLE_ARTIFACT = 'application/vnd.dev.sigstore.bundle.v0.3+json'
export const ANY_BUNDLE: RegExp = /^application\/vnd\.dev\.sigstore\.bundle[.+]/

export interface FetchOptions {
  readonly limits: ImageLimits
  readonly signal?: AbortSignal | undefined
  /** OpenPGP signatures are not in the repository: see ./lookaside.ts. Default: there are none. */
  readonly lookaside?: LookasideSource | undefined
}

export type LookasideSource = (reference: ImageReference, digest: Digest) => Promise<readonly FoundSignature[]>

export function signatureTag(manifestDigest: Digest): string {
  return `${digestAlgorithm(manifestDigest)}-${digestHex(manifestDigest)}.sig`
}

/**
 * Looks for signatures of an image, one kind at a time, so that nothing is asked for that no requirement needs.
 *
 * Errors of the function: those of the registry client, and `MalformedError` for objects out of form.
 */
export function signaturesIn(
  registry: RegistryClient,
  repository: ImageReference,
  options: FetchOptions,
): (digest: Digest, kind: FoundSignature['kind']) => Promise<readonly FoundSignature[]> {
  const finder = new SignatureFinder(registry, repository, options)
  return (digest, kind) => {
    switch (kind) {
      case 'cosign':
        return finder.cosign(digest)
      case 'bundle':
        return finder.bundles(digest)
      case 'openpgp':
        return options.lookaside?.(repository, digest) ?? Promise.resolve([])
      default:
        return kind satisfies never
    }
  }
}

class SignatureFinder {
  readonly #registry: RegistryClient
  readonly #repository: ImageReference
  readonly #limits: ImageLimits
  readonly #signal: AbortSignal | undefined

  constructor(registry: RegistryClient, repository: ImageReference, { limits, signal }: FetchOptions) {
    this.#registry = registry
    this.#repository = repository
    this.#limits = limits
    this.#signal = signal
  }

  async cosign(digest: Digest): Promise<readonly FoundCosign[]> {
    const tag = signatureTag(digest)
    const tagged = await this.#registry.findManifest(withTag(this.#repository, tag), this.#signal)
    const found = tagged === undefined ? [] : await this.#signaturesOf(this.#parse(tagged.bytes, tag), tag)
    for (const [name, manifest] of await this.#referrers(digest, (type) => type === COSIGN_ARTIFACT)) {
      found.push(...(await this.#signaturesOf(manifest, name)))
    }
    return found
  }

  async bundles(digest: Digest): Promise<readonly FoundBundle[]> {
    const found: FoundBundle[] = []
    for (const [name, manifest] of await this.#referrers(digest, (type) => ANY_BUNDLE.test(type))) {
      for (const [index, layer] of manifest.layers.entries()) {
        if (!ANY_BUNDLE.test(layer.mediaType)) continue
        const source = `bundle ${index + 1} of ${name}`
        const json = await this.#registry.fetchBlob(this.#repository, layer, {
          maxBytes: this.#limits.maxBundleBytes,
          what: source,
          signal: this.#signal,
        })
        found.push({ kind: 'bundle', json, source })
      }
    }
    return found
  }

  async #referrers(digest: Digest, wanted: (artifactType: string) => boolean): Promise<[string, ImageManifest][]> {
    const all = await listReferrers(this.#registry, this.#repository, digest, this.#signal)
    const chosen = all.filter(({ artifactType }) => artifactType !== undefined && wanted(artifactType))
    this.#checkCount(chosen.length, `referrers of ${digest}`)
    const manifests: [string, ImageManifest][] = []
    for (const descriptor of chosen) {
      const name = `referrer ${descriptor.digest}`
      const reference = withDigest(this.#repository, descriptor.digest)
      const { bytes } = await this.#registry.fetchManifest(reference, this.#signal)
      const manifest = this.#parse(bytes, name)
      // The list is hearsay: the manifest itself must say whom it refers to.
      if (manifest.subject?.digest === digest) manifests.push([name, manifest])
    }
    return manifests
  }

  async #signaturesOf(manifest: ImageManifest, name: string): Promise<FoundCosign[]> {
    this.#checkCount(manifest.layers.length, name)
    const signatures: FoundCosign[] = []
    for (const [index, layer] of manifest.layers.entries()) {
      if (layer.mediaType !== SIMPLE_SIGNING_TYPE || !layer.annotations.has(SIGNATURE_ANNOTATION)) continue
      const source = `signature ${index + 1} of ${name}`
      const payload = await this.#registry.fetchBlob(this.#repository, layer, {
        maxBytes: this.#limits.maxSignatureBytes,
        what: source,
        signal: this.#signal,
      })
      signatures.push({ kind: 'cosign', payload, annotations: layer.annotations, source })
    }
    return signatures
  }

  #parse(bytes: Uint8Array, name: string): ImageManifest {
    const manifest = parseManifest(bytes, `signatures ${name}`)
    if (manifest.kind === 'manifest') return manifest
    throw new MalformedError('ERR_IMAGE_SIGNATURE_FORMAT', `signatures ${name}: an index, not a manifest`)
  }

  #checkCount(count: number, name: string): void {
    const { maxSignatures } = this.#limits
    if (count <= maxSignatures) return
    throw new MalformedError(
      'ERR_IMAGE_SIGNATURE_FORMAT',
      `${name}: ${count} signatures, at most ${maxSignatures} are read`,
    )
  }
}
