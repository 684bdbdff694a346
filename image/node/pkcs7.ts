/**
 * Layer keys wrapped as CMS EnvelopedData (RFC 5652 section 6), as ocicrypt's library writes it: RSA key transport and
 * AES-GCM, whose parameters it puts into a second, primitive SEQUENCE. Read in that and in the standard's form.
 */
import {
  constants,
  createCipheriv,
  createDecipheriv,
  type KeyObject,
  privateDecrypt,
  publicEncrypt,
  randomBytes,
  X509Certificate,
} from 'node:crypto'
import { MalformedError, UnverifiedError } from '#protocol/errors'
import {
  DER_TAG,
  type DerValue,
  expectTag,
  readDer,
  readObjectId,
  readSingle,
  readSmallInteger,
} from '../signature/x509/der.ts'

const ENVELOPED_DATA = '1.2.840.113549.1.7.3'
const DATA = '1.2.840.113549.1.7.1'
const RSA = '1.2.840.113549.1.1.1'
const AES_128_GCM = '2.16.840.1.101.3.4.1.6'
const AES_256_GCM = '2.16.840.1.101.3.4.1.46'
const CIPHERS: ReadonlyMap<string, { name: 'aes-128-gcm' | 'aes-256-gcm'; keyBytes: number }> = new Map([
  [AES_128_GCM, { name: 'aes-128-gcm', keyBytes: 16 }],
  [AES_256_GCM, { name: 'aes-256-gcm', keyBytes: 32 }],
])
const NONCE_BYTES = 12
const TAG_BYTES = 16
/** Where RFC 5084 has an octet string, ocicrypt's library writes context tag 4. */
const TAGGED_NONCE = 0x84
const MAX_RECIPIENTS = 64

export interface Envelope {
  /** RSA ciphertexts of the content key, one per recipient. */
  readonly keys: readonly Uint8Array[]
  readonly algorithm: string
  readonly nonce: Uint8Array
  /** Ciphertext ‖ tag. */
  readonly sealed: Uint8Array
}

/** Throws `MalformedError` ERR_LAYER_PKCS7. */
export function parseEnvelope(bytes: Uint8Array, what: string): Envelope {
  try {
    const [type, body] = readDer(readSingle(bytes, DER_TAG.sequence).content)
    if (readObjectId(type) !== ENVELOPED_DATA) throw malformed(what, 'it is not EnvelopedData')
    const enveloped = readSingle(expectTag(body, 0xa0).content, DER_TAG.sequence)
    const [, recipients, content] = readDer(enveloped.content)
    const infos = readDer(expectTag(recipients, 0x31).content)
    if (infos.length > MAX_RECIPIENTS) throw malformed(what, `more than ${MAX_RECIPIENTS} recipients`)
    const [kind, algorithm, data] = readDer(expectTag(content, DER_TAG.sequence).content)
    if (readObjectId(kind) !== DATA) throw malformed(what, 'its content is not data')
    const [id, parameters] = readDer(expectTag(algorithm, DER_TAG.sequence).content)
    return {
      keys: infos.flatMap((info) => transportedKey(info)),
      algorithm: readObjectId(id),
      nonce: readNonce(parameters, what),
      sealed: readContent(data, what),
    }
  } catch (cause) {
    if (!(cause instanceof MalformedError) || cause.code === 'ERR_LAYER_PKCS7') throw cause
    throw malformed(what, cause.message, cause)
  }
}

/** Throws `UnverifiedError` ERR_LAYER_KEY when none of the keys opens it. */
export function openEnvelope(bytes: Uint8Array, keys: readonly KeyObject[], what: string): Uint8Array {
  const envelope = parseEnvelope(bytes, what)
  const cipher = CIPHERS.get(envelope.algorithm)
  if (cipher === undefined) throw malformed(what, `content cipher ${envelope.algorithm} is not AES-GCM`)
  for (const key of keys) {
    if (key.asymmetricKeyType !== 'rsa') continue
    for (const wrapped of envelope.keys) {
      const contentKey = transportOpen(key, wrapped)
      if (contentKey?.length !== cipher.keyBytes) continue
      const plain = openContent(cipher.name, contentKey, envelope)
      if (plain !== undefined) return plain
    }
  }
  throw new UnverifiedError('ERR_LAYER_KEY', `${what}: no key that was given opens its PKCS#7 envelope`, {
    hint: 'Give the private key of a certificate the image was encrypted for.',
  })
}

/** @param certificates PEM or DER, of RSA keys */
export function sealEnvelope(plain: Uint8Array, certificates: readonly (string | Uint8Array)[]): Uint8Array {
  const [key, nonce] = [randomBytes(32), randomBytes(NONCE_BYTES)]
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
  const sealed = Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()])
  const infos = certificates.map((certificate) => {
    const x509 = new X509Certificate(certificate)
    const wrapped = publicEncrypt({ key: x509.publicKey, padding: constants.RSA_PKCS1_PADDING }, key)
    return sequence(integer(0), issuerAndSerial(x509), sequence(objectId(RSA)), der(DER_TAG.octetString, wrapped))
  })
  const parameters = der(0x10, sequence(der(TAGGED_NONCE, nonce), integer(TAG_BYTES)))
  const content = sequence(
    objectId(DATA),
    sequence(objectId(AES_256_GCM), parameters),
    der(0xa0, der(DER_TAG.octetString, sealed)),
  )
  return sequence(objectId(ENVELOPED_DATA), der(0xa0, sequence(integer(0), der(0x31, ...infos), content)))
}

function transportedKey(info: DerValue): readonly Uint8Array[] {
  // Recipients of other kinds (key agreement, passwords) have a tag of their own, and are somebody else's.
  if (info.tag !== DER_TAG.sequence) return []
  const [, , algorithm, key] = readDer(info.content)
  const [id] = readDer(expectTag(algorithm, DER_TAG.sequence).content)
  return readObjectId(id) === RSA ? [expectTag(key, DER_TAG.octetString).content] : []
}

function readNonce(parameters: DerValue | undefined, what: string): Uint8Array {
  const [first, ...rest] = readDer(parameters?.content ?? new Uint8Array())
  const parts = first?.tag === DER_TAG.sequence ? readDer(first.content) : first === undefined ? [] : [first, ...rest]
  const [nonce, length] = parts
  const tagBytes = length === undefined ? 12 : readSmallInteger(length)
  const known = nonce?.tag === DER_TAG.octetString || nonce?.tag === TAGGED_NONCE
  if (!known || nonce.content.length !== NONCE_BYTES || tagBytes !== TAG_BYTES) {
    throw malformed(what, 'its GCM parameters are not a nonce of 12 bytes and a tag of 16')
  }
  return nonce.content
}

/** [0] of an octet string: primitive, or constructed of several. */
function readContent(data: DerValue | undefined, what: string): Uint8Array {
  if (data?.tag === 0x80) return data.content
  if (data?.tag !== 0xa0) throw malformed(what, 'it has no content')
  return Buffer.concat(readDer(data.content).map((part) => expectTag(part, DER_TAG.octetString).content))
}

function transportOpen(key: KeyObject, wrapped: Uint8Array): Buffer | undefined {
  try {
    // OpenSSL answers wrong padding with random bytes, so there is no oracle; the tag of the content decides.
    return privateDecrypt({ key, padding: constants.RSA_PKCS1_PADDING }, wrapped)
  } catch {
    return undefined
  }
}

function openContent(
  name: 'aes-128-gcm' | 'aes-256-gcm',
  key: Buffer,
  { nonce, sealed }: Envelope,
): Uint8Array | undefined {
  if (sealed.length < TAG_BYTES) return undefined
  const end = sealed.length - TAG_BYTES
  const decipher = createDecipheriv(name, key, nonce, { authTagLength: TAG_BYTES })
  decipher.setAuthTag(sealed.subarray(end))
  const plain = decipher.update(sealed.subarray(0, end))
  try {
    decipher.final()
    return plain
  } catch {
    return undefined
  }
}

function issuerAndSerial(x509: X509Certificate): Uint8Array {
  const [tbs] = readDer(readSingle(x509.raw, DER_TAG.sequence).content)
  const fields = readDer(expectTag(tbs, DER_TAG.sequence).content).filter(({ tag }) => tag !== 0xa0)
  const [serial, , issuer] = fields
  return sequence(expectTag(issuer, DER_TAG.sequence).encoded, expectTag(serial, DER_TAG.integer).encoded)
}

function sequence(...parts: readonly Uint8Array[]): Uint8Array {
  return der(DER_TAG.sequence, ...parts)
}

function integer(value: number): Uint8Array {
  return der(DER_TAG.integer, Uint8Array.of(value))
}

function objectId(dotted: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  const arcs = [40 * first + second, ...rest].flatMap((arc) => {
    const septets = [arc % 128]
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) septets.unshift((left % 128) | 0x80)
    return septets
  })
  return der(DER_TAG.objectId, Uint8Array.from(arcs))
}

function der(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const content = Buffer.concat(parts)
  const { length } = content
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Uint8Array.of(tag, ...size), content])
}

function malformed(what: string, why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_LAYER_PKCS7', `${what}: not a PKCS#7 envelope: ${why}`, {
    ...(cause === undefined ? {} : { cause }),
  })
}
