/**
 * Signs images as cosign 3 does: a sigstore bundle 0.3 with an in-toto statement about the digest, stored as a referrer.
 * By key alone; there is no log entry, and policies judge such bundles without a trusted root.
 */
import { createPublicKey } from 'node:crypto'
import { toBase64 } from '#protocol/encoding'
import { computeDigest, type Digest, digestAlgorithm, digestHex } from '#protocol/oci/digest'
import { OCI_INDEX, OCI_MANIFEST } from '#protocol/oci/media-types'
import { formatReference, type ImageReference, parseReference, withDigest, withTag } from '#protocol/oci/reference'
import { discard } from '../registry/body.ts'
import { referrersTag } from '../registry/referrers.ts'
import { BUNDLE_ARTIFACT } from '../signature/cosign.ts'
import { COSIGN_SIGNATURE } from '../signature/found.ts'
import { IN_TOTO_PAYLOAD } from '../signature/statement.ts'
import { type SignOptions, signBytes } from './sign.ts'
import { readSigningKey } from './signing-key.ts'
import { type UploadTarget, uploadBlob, uploadManifest } from './upload.ts'

const EMPTY = 'application/vnd.oci.empty.v1+json'

export interface SignBundleOptions extends SignOptions {
  /** What is said about the image. Default: that it is signed. */
  readonly predicate?: { readonly type: string; readonly value: unknown }
}

export interface BundledImage {
  /** Repository and digest that were signed. */
  readonly reference: string
  readonly digest: Digest
  /** Digest of the referrer's manifest. */
  readonly referrer: Digest
}

/** Errors: those of `readSigningKey` and of the registry. */
export async function signImageBundle(options: SignBundleOptions): Promise<BundledImage> {
  const key = readSigningKey(options.privatePem, options.password)
  const { registry, signal } = options
  const reference =
    typeof options.reference === 'string' ? parseReference(options.reference, 'latest') : options.reference
  const { bytes, digest, contentType = OCI_MANIFEST } = await registry.fetchManifest(reference, signal)
  const { type = COSIGN_SIGNATURE, value = {} } = options.predicate ?? {}
  const payload = json({
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ digest: { [digestAlgorithm(digest)]: digestHex(digest) } }],
    predicateType: type,
    predicate: value,
  })
  const signature = signBytes(key, preAuthenticationEncoding(IN_TOTO_PAYLOAD, payload))
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
  const hash = registry.crypto.createHash('sha256')
  hash.update(spki)
  const bundle = json({
    mediaType: BUNDLE_ARTIFACT,
    verificationMaterial: { publicKey: { hint: toBase64(hash.digest()) } },
    dsseEnvelope: {
      payload: toBase64(payload),
      payloadType: IN_TOTO_PAYLOAD,
      signatures: [{ sig: toBase64(signature) }],
    },
  })
  const target = { registry, repository: reference, signal }
  const annotations = { 'dev.sigstore.bundle.content': 'dsse-envelope', 'dev.sigstore.bundle.predicateType': type }
  const subject = { mediaType: contentType, digest, size: bytes.length }
  const referrer = await pushReferrer(target, { bundle, subject, annotations })
  return { reference: formatReference(withDigest(reference, digest)), digest, referrer }
}

/** DSSE: what is signed is the type and the payload, each behind its length. */
export function preAuthenticationEncoding(type: string, payload: Uint8Array): Uint8Array {
  const head = new TextEncoder().encode(`DSSEv1 ${Buffer.byteLength(type)} ${type} ${payload.length} `)
  return Buffer.concat([head, payload])
}

interface Referrer {
  readonly bundle: Uint8Array
  readonly subject: { readonly mediaType: string; readonly digest: Digest; readonly size: number }
  readonly annotations: Readonly<Record<string, string>>
}

async function pushReferrer(target: UploadTarget, { bundle, subject, annotations }: Referrer): Promise<Digest> {
  const config = { mediaType: EMPTY, ...(await push(target, new TextEncoder().encode('{}'))) }
  const layer = { mediaType: BUNDLE_ARTIFACT, ...(await push(target, bundle)) }
  const manifest = json({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType: BUNDLE_ARTIFACT,
    config,
    layers: [layer],
    subject,
    annotations,
  })
  const digest = computeDigest(target.registry.crypto, manifest)
  await uploadManifest(target, { bytes: manifest, mediaType: OCI_MANIFEST, version: digest })
  const descriptor = {
    mediaType: OCI_MANIFEST,
    digest,
    size: manifest.length,
    artifactType: BUNDLE_ARTIFACT,
    annotations,
  }
  if (!(await listsReferrers(target, subject.digest))) await addToFallback(target, subject.digest, descriptor)
  return digest
}

/** Distribution-spec 1.1: registries without the API answer 404, and clients keep the index themselves. */
async function listsReferrers({ registry, repository, signal }: UploadTarget, digest: Digest): Promise<boolean> {
  const path = `referrers/${digest}`
  const response = await registry.call({ method: 'GET', repository, path, actions: 'pull', signal })
  await discard(response)
  return response.status === 200
}

async function addToFallback(target: UploadTarget, subject: Digest, descriptor: object): Promise<void> {
  const tag: ImageReference = withTag(target.repository, referrersTag(subject))
  const found = await target.registry.findManifest(tag, target.signal)
  const manifests = found === undefined ? [] : JSON.parse(new TextDecoder().decode(found.bytes)).manifests
  const bytes = json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [...manifests, descriptor] })
  await uploadManifest(target, { bytes, mediaType: OCI_INDEX, version: referrersTag(subject) })
}

async function push(target: UploadTarget, bytes: Uint8Array): Promise<{ digest: Digest; size: number }> {
  const digest = computeDigest(target.registry.crypto, bytes)
  await uploadBlob(target, { digest, size: bytes.length, read: () => bytes })
  return { digest, size: bytes.length }
}

function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value))
}
