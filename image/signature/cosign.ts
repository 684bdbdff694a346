/**
 * cosign signatures stored as tags: `sha256-<hex>.sig` in the image's own repository is a manifest whose every layer is
 * one signature, the payload as blob and the signature as annotation (cosign SIGNATURE_SPEC).
 */
import { MalformedError } from '#protocol/errors'
import { type Digest, digestAlgorithm, digestHex } from '#protocol/oci/digest'
import { type ImageReference, withTag } from '#protocol/oci/reference'
import type { ImageLimits } from '../limits.ts'
import { parseManifest } from '../manifest/manifest.ts'
import type { RegistryClient } from '../registry/client.ts'
import { decodeSignature, SIGNATURE_ANNOTATION, SIMPLE_SIGNING_TYPE } from './payload.ts'

/** One signature as found, nothing of it verified but the payload's own digest. */
export interface FoundSignature {
  readonly payload: Uint8Array
  /** DER for ECDSA. */
  readonly signature: Uint8Array
}

export function signatureTag(manifestDigest: Digest): string {
  return `${digestAlgorithm(manifestDigest)}-${digestHex(manifestDigest)}.sig`
}

/** Empty when the image has none. Errors: those of the registry client, and `MalformedError` for objects out of form. */
export async function fetchSignatures(
  registry: RegistryClient,
  repository: ImageReference,
  manifestDigest: Digest,
  { limits, signal }: { limits: ImageLimits; signal?: AbortSignal | undefined },
): Promise<readonly FoundSignature[]> {
  const tag = signatureTag(manifestDigest)
  const found = await registry.findManifest(withTag(repository, tag), signal)
  if (found === undefined) return []
  const manifest = parseManifest(found.bytes, `signatures ${tag}`)
  if (manifest.kind === 'index') {
    throw new MalformedError('ERR_IMAGE_SIGNATURE_FORMAT', `signatures ${tag}: an index, not a manifest`)
  }
  if (manifest.layers.length > limits.maxSignatures) {
    throw new MalformedError(
      'ERR_IMAGE_SIGNATURE_FORMAT',
      `signatures ${tag}: ${manifest.layers.length} signatures, at most ${limits.maxSignatures} are read`,
    )
  }
  const signatures: FoundSignature[] = []
  for (const [index, layer] of manifest.layers.entries()) {
    const annotation = layer.annotations.get(SIGNATURE_ANNOTATION)
    if (layer.mediaType !== SIMPLE_SIGNING_TYPE || annotation === undefined) continue
    const what = `signature ${index + 1} of ${tag}`
    const payload = await registry.fetchBlob(repository, layer, { maxBytes: limits.maxSignatureBytes, what, signal })
    signatures.push({ payload, signature: decodeSignature(annotation, what) })
  }
  return signatures
}
