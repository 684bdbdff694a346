/**
 * The TPM extension of the KBS messages: an EK and an AK in the Request, a credential in the Challenge, a quote in the
 * Attestation. `attestation-messages.md` explains each member.
 */
import { canonicalJsonBytes, type JsonObject, type JsonValue } from './canonical-json.ts'
import type { CryptoProvider } from './crypto-provider.ts'
import { concatBytes, fromBase64, fromHex, toBase64, toHex } from './encoding.ts'
import { JsonFields } from './json-fields.ts'

export const PCR_COUNT = 24
const PCR_SHA256_BYTES = 32
const MAX_CERTIFICATE = 4096
const MAX_TPM_STRUCTURE = 4096
const MAX_EVENT_LOG = 1024 * 1024
const MAX_ADMITTED_IMAGES = 256
const MAX_LAYERS = 512
const DIGEST = /^sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})$/

/** `extra-params.tpm` of the Request. */
export interface TpmRequest {
  /** DER of the endorsement key's certificate as the TPM keeps it. */
  readonly ekCertificate: Uint8Array
  /** TPMT_PUBLIC of the attestation key. */
  readonly akPublic: Uint8Array
}

/** `extra-params.tpm` of the Challenge. */
export interface TpmChallenge {
  /** Content of TPM2B_ID_OBJECT. */
  readonly credentialBlob: Uint8Array
  /** Content of TPM2B_ENCRYPTED_SECRET. */
  readonly encryptedSecret: Uint8Array
  /** What must be quoted, exactly. */
  readonly pcrSelection: { readonly bank: 'sha256'; readonly pcrs: readonly number[] }
}

/** What the guest admitted and then extended into PCR 15, in this order. */
export interface AdmittedImage {
  readonly container: string
  readonly manifest: string
  readonly config: string
  readonly diffIds: readonly string[]
}

/** `tee-evidence.primary_evidence` of the Attestation for tee `tpm`. */
export interface TpmEvidence {
  readonly akPublic: Uint8Array
  readonly quote: {
    /** TPMS_ATTEST, the exact bytes that are signed. */
    readonly message: Uint8Array
    /** TPMT_SIGNATURE. */
    readonly signature: Uint8Array
    /** Index = PCR; undefined where not selected. SHA-256 bank. */
    readonly pcrs: readonly (Uint8Array | undefined)[]
  }
  /** Firmware event log, crypto-agile form. */
  readonly eventLog: Uint8Array
  /** HMAC-SHA256(credential secret, report-data digest). */
  readonly credentialSecret: Uint8Array
  readonly images: readonly AdmittedImage[]
}

export function parseTpmRequest(fields: JsonFields): TpmRequest {
  return {
    ekCertificate: bytes(fields, 'ek-certificate', MAX_CERTIFICATE),
    akPublic: bytes(fields, 'ak-public', MAX_TPM_STRUCTURE),
  }
}

export function tpmRequestJson(request: TpmRequest): JsonObject {
  return { 'ek-certificate': toBase64(request.ekCertificate), 'ak-public': toBase64(request.akPublic) }
}

export function parseTpmChallenge(fields: JsonFields): TpmChallenge {
  const selection = fields.object('pcr-selection')
  const bank = selection.oneOf('bank', ['sha256'])
  const pcrs = selection.integers('pcrs', { maxItems: PCR_COUNT, min: 0, max: PCR_COUNT - 1 })
  if (pcrs.length === 0 || pcrs.some((pcr, index) => index > 0 && pcr <= (pcrs[index - 1] ?? 0))) {
    throw selection.error('pcrs', 'a non-empty list in ascending order without repetition is needed')
  }
  return {
    credentialBlob: bytes(fields, 'credential-blob', MAX_TPM_STRUCTURE),
    encryptedSecret: bytes(fields, 'encrypted-secret', MAX_TPM_STRUCTURE),
    pcrSelection: { bank, pcrs },
  }
}

export function tpmChallengeJson(challenge: TpmChallenge): JsonObject {
  return {
    'credential-blob': toBase64(challenge.credentialBlob),
    'encrypted-secret': toBase64(challenge.encryptedSecret),
    'pcr-selection': { bank: challenge.pcrSelection.bank, pcrs: challenge.pcrSelection.pcrs },
  }
}

/** Throws `MalformedError` ERR_KBS_MESSAGE, ERR_BASE64 or ERR_HEX. */
export function parseTpmEvidence(primaryEvidence: JsonValue): TpmEvidence {
  const fields = new JsonFields(primaryEvidence, 'attestation.tee-evidence.primary_evidence', 'ERR_KBS_MESSAGE')
  const quote = fields.object('tpm_quote')
  return {
    akPublic: bytes(fields, 'ak_public', MAX_TPM_STRUCTURE),
    quote: {
      message: bytes(quote, 'message', MAX_TPM_STRUCTURE),
      signature: bytes(quote, 'signature', MAX_TPM_STRUCTURE),
      pcrs: parsePcrs(quote),
    },
    eventLog: bytes(fields, 'event_log', MAX_EVENT_LOG),
    credentialSecret: bytes(fields, 'credential_secret', 32),
    images: fields.has('images') ? fields.objects('images', MAX_ADMITTED_IMAGES).map(parseAdmittedImage) : [],
  }
}

export function tpmEvidenceJson(evidence: TpmEvidence): JsonObject {
  return {
    ak_public: toBase64(evidence.akPublic),
    tpm_quote: {
      message: toBase64(evidence.quote.message),
      signature: toBase64(evidence.quote.signature),
      pcrs: Array.from({ length: PCR_COUNT }, (_, index) => toHex(evidence.quote.pcrs[index] ?? new Uint8Array())),
    },
    event_log: toBase64(evidence.eventLog),
    credential_secret: toBase64(evidence.credentialSecret),
    images: evidence.images.map(admittedImageJson),
  }
}

/** Throws `MalformedError` ERR_KBS_MESSAGE. */
export function parseAdmittedImage(fields: JsonFields): AdmittedImage {
  const container = fields.string('container', 256)
  if (container === '') throw fields.error('container', 'empty')
  const image = {
    container,
    manifest: fields.string('manifest', 256),
    config: fields.string('config', 256),
    diffIds: fields.strings('diff_ids', { maxItems: MAX_LAYERS, maxChars: 256 }),
  }
  for (const digest of [image.manifest, image.config, ...image.diffIds]) {
    if (!DIGEST.test(digest)) throw fields.error('manifest', `${JSON.stringify(digest)} is not a content digest`)
  }
  return image
}

/** The object of which PCR 15 measures the canonical form. */
export function admittedImageJson(image: AdmittedImage): JsonObject {
  return { container: image.container, manifest: image.manifest, config: image.config, diff_ids: image.diffIds }
}

/** What PCR 15 is extended with when the image is admitted: SHA-256 of the canonical form. */
export function admittedImageDigest(crypto: CryptoProvider, image: AdmittedImage): Uint8Array {
  return sha256(crypto, canonicalJsonBytes(admittedImageJson(image)))
}

/** The value of PCR 15 after all these images were admitted in this order, and nothing else was. */
export function replayAdmittedImages(crypto: CryptoProvider, images: readonly AdmittedImage[]): Uint8Array {
  return images.reduce<Uint8Array>(
    (pcr, image) => sha256(crypto, concatBytes(pcr, admittedImageDigest(crypto, image))),
    new Uint8Array(PCR_SHA256_BYTES),
  )
}

function sha256(crypto: CryptoProvider, bytes: Uint8Array): Uint8Array {
  const hash = crypto.createHash('sha256')
  hash.update(bytes)
  return hash.digest()
}

function parsePcrs(quote: JsonFields): (Uint8Array | undefined)[] {
  const texts = quote.strings('pcrs', { maxItems: PCR_COUNT, maxChars: 2 * PCR_SHA256_BYTES })
  if (texts.length !== PCR_COUNT) throw quote.error('pcrs', `${texts.length} items, ${PCR_COUNT} are needed`)
  return texts.map((text, index) => {
    if (text === '') return undefined
    if (text.length !== 2 * PCR_SHA256_BYTES) throw quote.error(`pcrs[${index}]`, 'neither empty nor a SHA-256 value')
    return fromHex(text, `${quote.path}.pcrs[${index}]`)
  })
}

function bytes(fields: JsonFields, name: string, maxBytes: number): Uint8Array {
  const text = fields.string(name, Math.ceil(maxBytes / 3) * 4)
  const decoded = fromBase64(text, `${fields.path}.${name}`)
  if (decoded.length > maxBytes) throw fields.error(name, `${decoded.length} bytes, at most ${maxBytes} are read`)
  return decoded
}
