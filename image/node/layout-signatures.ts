/** Signatures in an OCI layout: cosign's under their tag's name, and manifests whose subject is the image. */
import { MalformedError } from '#protocol/errors'
import type { Descriptor } from '#protocol/oci/descriptor'
import type { Digest } from '#protocol/oci/digest'
import { MANIFEST_TYPES } from '#protocol/oci/media-types'
import { DEFAULT_LIMITS } from '../limits.ts'
import type { ImageManifest } from '../manifest/manifest.ts'
import { ANY_BUNDLE, signatureTag } from '../signature/cosign.ts'
import { type FoundSignature, SIGNATURE_ANNOTATION } from '../signature/found.ts'
import { SIMPLE_SIGNING_TYPE } from '../signature/payload.ts'
import type { OciLayout } from './layout.ts'

export const REFERENCE_NAME = 'org.opencontainers.image.ref.name'

/** @param entries of index.json */
export function signaturesInLayout(
  layout: OciLayout,
  entries: readonly Descriptor[],
): (digest: Digest, kind: FoundSignature['kind']) => Promise<readonly FoundSignature[]> {
  return async (digest, kind) => {
    const found: FoundSignature[] = []
    if (kind === 'openpgp') return found
    for (const entry of entries) {
      if (!MANIFEST_TYPES.has(entry.mediaType)) continue
      const { document } = await layout.document(entry)
      if (document.kind !== 'manifest') continue
      const named = entry.annotations.get(REFERENCE_NAME)?.endsWith(signatureTag(digest)) === true
      if (!named && document.subject?.digest !== digest) continue
      found.push(...(await signaturesOf(layout, document, entry.digest)).filter((signature) => signature.kind === kind))
    }
    return found
  }
}

async function signaturesOf(layout: OciLayout, manifest: ImageManifest, name: Digest): Promise<FoundSignature[]> {
  if (manifest.layers.length > DEFAULT_LIMITS.maxSignatures) {
    throw new MalformedError('ERR_OCI_LAYOUT', `${name}: more than ${DEFAULT_LIMITS.maxSignatures} signatures`)
  }
  const found: FoundSignature[] = []
  for (const [index, layer] of manifest.layers.entries()) {
    const source = `signature ${index + 1} of ${name}`
    if (ANY_BUNDLE.test(layer.mediaType)) {
      found.push({ kind: 'bundle', json: await layout.smallBlob(layer, DEFAULT_LIMITS.maxBundleBytes), source })
    }
    if (layer.mediaType === SIMPLE_SIGNING_TYPE && layer.annotations.has(SIGNATURE_ANNOTATION)) {
      const payload = await layout.smallBlob(layer, DEFAULT_LIMITS.maxSignatureBytes)
      found.push({ kind: 'cosign', payload, annotations: layer.annotations, source })
    }
  }
  return found
}
