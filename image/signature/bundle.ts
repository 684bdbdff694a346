/**
 * Sigstore bundles 0.1 to 0.3 with message signatures and DSSE envelopes, verified offline: certificate and SCT, log
 * inclusion (Rekor 1 and 2), time stamps, and the signature itself are @sigstore/verify's; what it leaves open is added
 * here and in ./bundle-checks.ts. Loaded only when a policy asks for it.
 */
import { type Bundle, bundleFromJSON } from '@sigstore/bundle'
import type { PublicKey, TrustedRoot } from '@sigstore/protobuf-specs'
import {
  type SignedEntity,
  type TrustMaterial,
  toSignedEntity,
  toTrustMaterial,
  VerificationError,
  Verifier,
} from '@sigstore/verify'
import type { CryptoProvider } from '#protocol/crypto-provider'
import { equalBytes } from '#protocol/encoding'
import { CaissonError, errorText, MalformedError, UnverifiedError } from '#protocol/errors'
import { type Digest, digestAlgorithm, digestHex } from '#protocol/oci/digest'
import { asObject } from '../json/fields.ts'
import { parseStrictJson } from '../json/strict-json.ts'
import { checkCertificate, checkLogEntries, checkMessageDigest } from './bundle-checks.ts'
import { fulcioIssuer } from './certificate-signer.ts'
import { requireProtobufJson } from './protobuf-json.ts'
import type { SigningKey } from './public-key.ts'
import { IN_TOTO_PAYLOAD, parseStatement, type Statement } from './statement.ts'
import { parseTrustedRoot } from './trusted-root.ts'
import { type Certificate, parseCertificate } from './x509/certificate.ts'

export interface BundleVerifier {
  /** Throws `MalformedError` ERR_IMAGE_TRUSTED_ROOT. */
  readTrust(input: BundleTrustInput, place: string): BundleTrust
  /** Throws `UnverifiedError` ERR_IMAGE_BUNDLE, or `MalformedError` ERR_IMAGE_SIGNATURE_FORMAT and others. */
  verify(json: Uint8Array, trust: BundleTrust, subject: BundleSubject, options: BundleOptions): VerifiedBundle
}

export interface BundleTrustInput {
  /** Any of them will do. Empty: certificates. */
  readonly keys: readonly SigningKey[]
  /** Undefined only with keys: then neither log entry nor time stamp is asked for. */
  readonly trustedRoot: Uint8Array | undefined
}

export interface BundleTrust {
  readonly keys: readonly SigningKey[]
  readonly root: TrustedRoot | undefined
}

/** What must have been signed: bytes, or something that goes by its digest, as images do. */
export type BundleSubject =
  | { readonly kind: 'artifact'; readonly bytes: Uint8Array; readonly digest: Digest }
  | { readonly kind: 'digest'; readonly digest: Digest }

export interface BundleOptions {
  readonly crypto: CryptoProvider
  readonly what: string
}

export interface VerifiedBundle {
  readonly signer:
    | { readonly kind: 'key'; readonly key: SigningKey }
    | { readonly kind: 'certificate'; readonly issuer: string; readonly subjects: readonly string[] }
  /** Undefined for a message signature. */
  readonly statement: Statement | undefined
}

const MEDIA_TYPES = /^application\/vnd\.dev\.sigstore\.bundle(?:\+json;version=0\.[123]|\.v0\.3\+json)$/
const MAX_LOG_ENTRIES = 16
const MAX_TIME_STAMPS = 16
const EMPTY_ROOT: TrustedRoot = {
  mediaType: '',
  certificateAuthorities: [],
  timestampAuthorities: [],
  tlogs: [],
  ctlogs: [],
}

/** JSON to bundle, with the checks of its own version. Throws `MalformedError` ERR_IMAGE_SIGNATURE_FORMAT and others. */
export function parseBundle(json: Uint8Array, what: string): Bundle {
  const document = asObject(parseStrictJson(json, what), what)
  if (typeof document.mediaType !== 'string' || !MEDIA_TYPES.test(document.mediaType)) {
    throw malformed(what, 'its mediaType is not that of a bundle from 0.1 to 0.3')
  }
  requireProtobufJson(document, what)
  let bundle: Bundle
  try {
    bundle = bundleFromJSON(document)
  } catch (cause) {
    throw malformed(what, errorText(cause), cause)
  }
  const { tlogEntries, content } = bundle.verificationMaterial
  if (tlogEntries.length > MAX_LOG_ENTRIES) throw malformed(what, `more than ${MAX_LOG_ENTRIES} log entries`)
  const stamps = bundle.verificationMaterial.timestampVerificationData?.rfc3161Timestamps ?? []
  if (stamps.length > MAX_TIME_STAMPS) throw malformed(what, `more than ${MAX_TIME_STAMPS} time stamps`)
  if (content.$case === 'publicKey') return bundle
  // Trust comes from the policy's root alone, so what is presented above the leaf is checked for its order only.
  const chain = presentedChain(bundle).map((der) => parseCertificate(der, what))
  for (const [index, { subject }] of chain.entries()) {
    const below = chain[index - 1]
    if (below !== undefined && !equalBytes(below.issuer, subject)) throw malformed(what, 'its chain is out of order')
  }
  return bundle
}

export const sigstoreBundles: BundleVerifier = {
  readTrust: ({ keys, trustedRoot }, place) => ({
    keys,
    root: trustedRoot === undefined ? undefined : parseTrustedRoot(trustedRoot, place),
  }),

  verify(json, trust, subject, options) {
    const bundle = parseBundle(json, options.what)
    const statement = readStatement(bundle, subject, options)
    if (subject.kind === 'artifact') checkMessageDigest(bundle, subject.bytes, options)
    if (trust.keys.length > 0) return { signer: verifyByKeys(bundle, trust, subject, options), statement }
    return { signer: verifyByCertificate(bundle, trust, subject, options), statement }
  },
}

/** The envelope's statement, which must be about the subject. It is a claim until the signature has verified. */
function readStatement(bundle: Bundle, subject: BundleSubject, { what }: BundleOptions): Statement | undefined {
  if (bundle.content.$case === 'messageSignature') {
    if (subject.kind === 'artifact') return undefined
    throw unverified(what, 'it signs bytes, where a statement about an image is wanted')
  }
  const { payload, payloadType } = bundle.content.dsseEnvelope
  if (payloadType !== IN_TOTO_PAYLOAD)
    throw unverified(what, `it signs ${JSON.stringify(payloadType)}, not a statement`)
  const statement = parseStatement(payload, `statement of ${what}`)
  const [algorithm, hex] = [digestAlgorithm(subject.digest), digestHex(subject.digest)]
  if (!statement.subjects.some((digests) => digests.get(algorithm) === hex)) {
    throw unverified(what, `its statement is about something else than ${subject.digest}`)
  }
  return statement
}

function verifyByKeys(
  bundle: Bundle,
  { keys, root }: BundleTrust,
  subject: BundleSubject,
  options: BundleOptions,
): VerifiedBundle['signer'] {
  const { content } = bundle.verificationMaterial
  if (content.$case !== 'publicKey') {
    throw unverified(options.what, 'it is signed by a certificate, where a key is wanted')
  }
  let failure: unknown
  for (const key of keys) {
    try {
      // The hint in a bundle is the signer's own note: every key of the policy is tried.
      const material = materialOf(root, new Map([[content.publicKey.hint, key.spki]]))
      verifyEntity(bundle, material, subject, { tlog: root === undefined ? 0 : 1, timestamps: 0 })
      if (root !== undefined) checkLogEntries(bundle, key.spki, options)
      return { kind: 'key', key }
    } catch (error) {
      failure ??= error
    }
  }
  throw asUnverified(failure, options.what)
}

function verifyByCertificate(
  bundle: Bundle,
  { root }: BundleTrust,
  subject: BundleSubject,
  options: BundleOptions,
): VerifiedBundle['signer'] {
  const [der] = presentedChain(bundle)
  if (der === undefined) throw unverified(options.what, 'it is signed by a bare key, where a certificate is wanted')
  const leaf = parseCertificate(der, `certificate of ${options.what}`)
  try {
    const material = materialOf(root, new Map())
    verifyEntity(bundle, material, subject, { tlog: 1, timestamps: 1 })
    checkCertificate(leaf, options)
    checkLogEntries(bundle, leaf.der, options)
  } catch (error) {
    throw asUnverified(error, options.what)
  }
  return { kind: 'certificate', issuer: fulcioIssuer(leaf, options.what), subjects: subjectsOf(leaf) }
}

function verifyEntity(
  bundle: Bundle,
  material: TrustMaterial,
  subject: BundleSubject,
  threshold: { tlog: number; timestamps: number },
): void {
  const verifier = new Verifier(material, {
    tlogThreshold: threshold.tlog,
    timestampThreshold: threshold.timestamps,
    ctlogThreshold: 1,
  })
  const entity = toSignedEntity(bundle, subject.kind === 'artifact' ? Buffer.from(subject.bytes) : undefined)
  if (threshold.tlog === 0) {
    // Without a trusted root nothing could be said about log entries and time stamps, and nothing is asked.
    verifier.verify({ ...entity, tlogEntries: [], timestamps: [] })
    return
  }
  const timestamps = entity.timestamps.filter(
    (timestamp) =>
      timestamp.$case !== 'timestamp-authority' || isUsable({ ...entity, timestamps: [timestamp] }, material),
  )
  verifier.verify({ ...entity, timestamps })
  requireLogsThen({ ...entity, timestamps }, material)
}

/**
 * Entries that a log promised carry their time, which was held against the log's validity. Those of Rekor 2 do not: the
 * time stamps say when it was, and the log must have been good then.
 */
function requireLogsThen({ tlogEntries, timestamps }: SignedEntity, { tlogs }: TrustMaterial): void {
  const times = timestamps.flatMap((stamp) =>
    stamp.$case === 'timestamp-authority' ? [stamp.timestamp.signingTime] : [],
  )
  for (const { inclusionPromise, logId } of tlogEntries) {
    if (inclusionPromise !== undefined) continue
    const logs = tlogs.filter(({ logID }) => logId !== undefined && equalBytes(logID, logId.keyId))
    const good = times.every((time) => logs.some(({ validFor }) => validFor.start <= time && time <= validFor.end))
    if (!good) throw new Error('its log was not trusted yet, or no longer, when it was stamped')
  }
}

/**
 * A time stamp by an authority that the root does not name says nothing. It is left out rather than held against the
 * bundle: whoever could add it could as well take it away, and what is left must still reach the threshold.
 */
function isUsable(entity: SignedEntity, material: TrustMaterial): boolean {
  try {
    new Verifier(material, { timestampThreshold: 0 }).verify(entity)
    return true
  } catch (error) {
    return !(error instanceof VerificationError && error.code === 'TIMESTAMP_ERROR')
  }
}

/** @param keys DER by hint */
function materialOf(root: TrustedRoot | undefined, keys: ReadonlyMap<string, Uint8Array>): TrustMaterial {
  // A hint is the signer's word, and may be the name of something that every object inherits.
  const byHint: Record<string, PublicKey> = Object.create(null)
  for (const [hint, spki] of keys) byHint[hint] = { rawBytes: Buffer.from(spki), keyDetails: 0 }
  return toTrustMaterial(root ?? EMPTY_ROOT, byHint)
}

/** DER, leaf first; empty for a bundle that a bare key signed. */
function presentedChain({ verificationMaterial: { content } }: Bundle): readonly Uint8Array[] {
  switch (content.$case) {
    case 'publicKey':
      return []
    case 'certificate':
      return [content.certificate.rawBytes]
    case 'x509CertificateChain':
      return content.x509CertificateChain.certificates.map(({ rawBytes }) => rawBytes)
    default:
      return content satisfies never
  }
}

function subjectsOf(leaf: Certificate): readonly string[] {
  return [...leaf.uris, ...leaf.emails]
}

function asUnverified(error: unknown, what: string): CaissonError {
  return error instanceof CaissonError ? error : unverified(what, errorText(error), error)
}

function unverified(what: string, why: string, cause?: unknown): UnverifiedError {
  return new UnverifiedError('ERR_IMAGE_BUNDLE', `${what}: the bundle does not hold: ${why}`, {
    hint: 'Sign the image again, by a key or a service that the policy names.',
    ...(cause === undefined ? {} : { cause }),
  })
}

function malformed(what: string, why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_IMAGE_SIGNATURE_FORMAT', `${what}: not a sigstore bundle: ${why}`, {
    ...(cause === undefined ? {} : { cause }),
  })
}
