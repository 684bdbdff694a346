/** Signs images in cosign's tag form: see ../signature/cosign.ts for what is read back. */
import { createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { toBase64 } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { computeDigest, type Digest } from '#protocol/oci/digest'
import { OCI_CONFIG, OCI_MANIFEST } from '#protocol/oci/media-types'
import { formatReference, type ImageReference, parseReference, withDigest, withTag } from '#protocol/oci/reference'
import { type ImageManifest, parseManifest } from '../manifest/manifest.ts'
import type { RegistryClient } from '../registry/client.ts'
import { signatureTag } from '../signature/cosign.ts'
import { SIGNATURE_ANNOTATION } from '../signature/found.ts'
import { encodePayload, SIMPLE_SIGNING_TYPE } from '../signature/payload.ts'
import { readSigningKey } from './signing-key.ts'
import { uploadBlob, uploadManifest } from './upload.ts'

export interface SigningKeyPair {
  /** PKCS#8, not encrypted: keep it where only its owner reads. */
  readonly privatePem: string
  readonly publicPem: string
}

/** ECDSA on P-256. */
export function generateSigningKey(): SigningKeyPair {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return {
    privatePem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    publicPem: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
  }
}

export interface SignOptions {
  readonly reference: string | ImageReference
  readonly registry: RegistryClient
  /** As `readSigningKey` takes them. */
  readonly privatePem: string
  readonly password?: string
  readonly signal?: AbortSignal
}

export interface SignedImage {
  /** Repository and digest that were signed: of the index, where the image is one. */
  readonly reference: string
  readonly digest: Digest
  readonly signatureTag: string
}

/** Adds one signature to those the image has. Errors: those of `readSigningKey` and of the registry. */
export async function signImage(options: SignOptions): Promise<SignedImage> {
  const key = readSigningKey(options.privatePem, options.password)
  const reference =
    typeof options.reference === 'string' ? parseReference(options.reference, 'latest') : options.reference
  const { registry, signal } = options
  const { digest } = await registry.fetchManifest(reference, signal)
  const payload = encodePayload({ manifestDigest: digest, dockerReference: signedName(reference, digest) })
  const signature = toBase64(signBytes(key, payload))

  const tag = signatureTag(digest)
  const target = { registry, repository: reference, signal }
  const layer = {
    mediaType: SIMPLE_SIGNING_TYPE,
    size: payload.byteLength,
    digest: computeDigest(registry.crypto, payload),
    annotations: { [SIGNATURE_ANNOTATION]: signature },
  }
  const layers = [...(await existingLayers(registry, withTag(reference, tag), signal)), layer]
  const config = new TextEncoder().encode(JSON.stringify(configFor(layers.map((entry) => entry.digest))))
  const configDigest = computeDigest(registry.crypto, config)
  await uploadBlob(target, { digest: layer.digest, size: layer.size, read: () => payload })
  await uploadBlob(target, { digest: configDigest, size: config.byteLength, read: () => config })
  const manifest = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: { mediaType: OCI_CONFIG, size: config.byteLength, digest: configDigest },
    layers,
  }
  const bytes = new TextEncoder().encode(JSON.stringify(manifest))
  await uploadManifest(target, { bytes, mediaType: OCI_MANIFEST, version: tag })
  return { reference: formatReference(withDigest(reference, digest)), digest, signatureTag: tag }
}

/**
 * The name that the signature claims: with the tag that was asked for, else with the digest. A bare repository, as
 * cosign writes it, would satisfy no rule about versions, the default one of policy.json among them.
 */
function signedName(reference: ImageReference, digest: Digest): string {
  return formatReference(
    reference.tag === undefined ? withDigest(reference, digest) : withTag(reference, reference.tag),
  )
}

/** As cosign signs: SHA-256 with ECDSA (DER) or RSA PKCS#1 v1.5, and Ed25519 over the bytes themselves. */
export function signBytes(key: KeyObject, bytes: Uint8Array): Uint8Array {
  return sign(key.asymmetricKeyType === 'ed25519' ? null : 'sha256', bytes, key)
}

/** Public half of a private key, as a policy wants it. Errors: those of `readSigningKey`. */
export function publicKeyOf(privatePem: string, password?: string): string {
  return createPublicKey(readSigningKey(privatePem, password)).export({ type: 'spki', format: 'pem' }).toString()
}

async function existingLayers(
  registry: RegistryClient,
  tag: ImageReference,
  signal: AbortSignal | undefined,
): Promise<readonly { mediaType: string; size: number; digest: Digest; annotations: Record<string, string> }[]> {
  const found = await registry.findManifest(tag, signal)
  if (found === undefined) return []
  const manifest: ImageManifest | { kind: 'index' } = parseManifest(found.bytes, formatReference(tag))
  if (manifest.kind === 'index') {
    throw new MalformedError('ERR_IMAGE_SIGNATURE_FORMAT', `${formatReference(tag)}: an index, not a manifest`)
  }
  return manifest.layers.map(({ mediaType, size, digest, annotations }) => {
    return { mediaType, size, digest, annotations: Object.fromEntries(annotations) }
  })
}

/** cosign's signature images carry a minimal configuration, so that registries take them for images. */
function configFor(diffIds: readonly Digest[]): unknown {
  const created = '0001-01-01T00:00:00Z'
  return {
    architecture: '',
    created,
    history: [{ created }],
    os: '',
    rootfs: { type: 'layers', diff_ids: diffIds },
    config: {},
  }
}
