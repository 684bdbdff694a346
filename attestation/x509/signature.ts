/**
 * Signature algorithms of certificates and revocation lists: read strictly (RFC 4055, RFC 5758), verified over the exact
 * bytes that were signed. What is not understood completely verifies nothing.
 */
import { constants, type KeyObject, verify } from 'node:crypto'
import { DER_TAG, type DerValue, readDer, readObjectId, readSingleDer, readSmallInteger } from '#protocol/der'
import { equalBytes } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'

export type Hash = 'sha1' | 'sha256' | 'sha384' | 'sha512'

export type SignatureScheme =
  | { readonly kind: 'rsa-pss'; readonly hash: Hash; readonly saltLength: number }
  | { readonly kind: 'rsa-pkcs1' | 'ecdsa'; readonly hash: Hash }

export interface SignatureAlgorithm {
  readonly oid: string
  /** DER of the parameters; undefined when absent. */
  readonly parameters: Uint8Array | undefined
  /** Undefined: an algorithm that is not known here. */
  readonly scheme: SignatureScheme | undefined
}

export const SIGNATURE_OID = {
  rsaPss: '1.2.840.113549.1.1.10',
  rsaSha1: '1.2.840.113549.1.1.5',
  rsaSha256: '1.2.840.113549.1.1.11',
  rsaSha384: '1.2.840.113549.1.1.12',
  rsaSha512: '1.2.840.113549.1.1.13',
  ecdsaSha256: '1.2.840.10045.4.3.2',
  ecdsaSha384: '1.2.840.10045.4.3.3',
  ecdsaSha512: '1.2.840.10045.4.3.4',
} as const

/** SHA-2 with RSA (PKCS #1 and PSS) and ECDSA: what a chain may be signed with unless its verifier demands less. */
export const STRONG_ALGORITHMS: ReadonlySet<string> = new Set(
  Object.values(SIGNATURE_OID).filter((oid) => oid !== SIGNATURE_OID.rsaSha1),
)

const PKCS1: Readonly<Record<string, Hash>> = {
  [SIGNATURE_OID.rsaSha1]: 'sha1',
  [SIGNATURE_OID.rsaSha256]: 'sha256',
  [SIGNATURE_OID.rsaSha384]: 'sha384',
  [SIGNATURE_OID.rsaSha512]: 'sha512',
}
const ECDSA: Readonly<Record<string, Hash>> = {
  [SIGNATURE_OID.ecdsaSha256]: 'sha256',
  [SIGNATURE_OID.ecdsaSha384]: 'sha384',
  [SIGNATURE_OID.ecdsaSha512]: 'sha512',
}
const PSS_HASHES: Readonly<Record<string, Hash>> = {
  '2.16.840.1.101.3.4.2.1': 'sha256',
  '2.16.840.1.101.3.4.2.2': 'sha384',
  '2.16.840.1.101.3.4.2.3': 'sha512',
}
const MGF1 = '1.2.840.113549.1.1.8'
const HASH_BYTES: Readonly<Record<Hash, number>> = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 }
const NULL = new Uint8Array([5, 0])
const MIN_RSA_BITS = 2048
/** P-256 and wider (and no binary or Brainpool curves). */
const CURVES: ReadonlySet<string> = new Set(['prime256v1', 'secp384r1', 'secp521r1'])

/** Reads an AlgorithmIdentifier. Throws `MalformedError` ERR_SIGNATURE_ALGORITHM or ERR_DER. */
export function readSignatureAlgorithm(value: DerValue): SignatureAlgorithm {
  if (value.tag !== DER_TAG.sequence) throw malformed('an algorithm identifier is needed')
  const [id, parameters, ...more] = readDer(value.content)
  if (id === undefined || more.length > 0) throw malformed('an algorithm identifier has a name and parameters')
  const oid = readObjectId(id)
  return { oid, parameters: parameters?.encoded, scheme: readScheme(oid, parameters) }
}

/**
 * Does `signature` over `signed` verify under `key`? False as well for unknown algorithms, keys of another kind, and keys
 * that are too short to prove anything.
 */
export function verifySignature(
  signed: Uint8Array,
  { scheme }: SignatureAlgorithm,
  signature: Uint8Array,
  key: KeyObject,
): boolean {
  if (scheme === undefined || !suits(key, scheme)) return false
  try {
    if (scheme.kind !== 'rsa-pss') return verify(scheme.hash, signed, key, signature)
    const padding = constants.RSA_PKCS1_PSS_PADDING
    return verify(scheme.hash, signed, { key, padding, saltLength: scheme.saltLength }, signature)
  } catch {
    return false // a key whose own parameters forbid this use
  }
}

interface KeyKind {
  readonly type: string | undefined
  readonly bits: number
  readonly curve: string
}

/** Asking a key costs as much as a tenth of a verification, and the CAs are asked again and again. */
const kinds = new WeakMap<KeyObject, KeyKind>()

function kindOf(key: KeyObject): KeyKind {
  const known = kinds.get(key)
  if (known !== undefined) return known
  const { modulusLength = 0, namedCurve = '' } = key.asymmetricKeyDetails ?? {}
  const kind = { type: key.asymmetricKeyType, bits: modulusLength, curve: namedCurve }
  kinds.set(key, kind)
  return kind
}

function suits(key: KeyObject, { kind }: SignatureScheme): boolean {
  const { type, bits, curve } = kindOf(key)
  if (kind === 'ecdsa') return type === 'ec' && CURVES.has(curve)
  return (type === 'rsa' || (kind === 'rsa-pss' && type === 'rsa-pss')) && bits >= MIN_RSA_BITS
}

function readScheme(oid: string, parameters: DerValue | undefined): SignatureScheme | undefined {
  if (oid === SIGNATURE_OID.rsaPss) return readPss(parameters)
  const pkcs1 = PKCS1[oid]
  if (pkcs1 !== undefined) {
    // RFC 4055 5: NULL is to be written, absence to be accepted.
    if (parameters !== undefined && !equalBytes(parameters.encoded, NULL)) throw malformed('RSA takes no parameters')
    return { kind: 'rsa-pkcs1', hash: pkcs1 }
  }
  const ecdsa = ECDSA[oid]
  if (ecdsa === undefined) return undefined
  if (parameters !== undefined) throw malformed('ECDSA takes no parameters') // RFC 5758 3.2
  return { kind: 'ecdsa', hash: ecdsa }
}

/** RFC 4055 3.1. The defaults are SHA-1, so every field but the trailer must be there. */
function readPss(parameters: DerValue | undefined): SignatureScheme {
  if (parameters?.tag !== DER_TAG.sequence) throw malformed('RSA-PSS needs parameters')
  const fields = readDer(parameters.content)
  const tags = fields.map(({ tag }) => tag)
  if (tags.some((tag, index) => tag < 0xa0 || tag > 0xa3 || tag <= (tags[index - 1] ?? 0))) {
    throw malformed('RSA-PSS has unknown, repeated or unordered parameters')
  }
  const field = (number: number): Uint8Array | undefined => fields.find(({ tag }) => tag === 0xa0 + number)?.content
  const [hashField, maskField, saltField, trailerField] = [field(0), field(1), field(2), field(3)]
  if (hashField === undefined || maskField === undefined || saltField === undefined) {
    throw malformed('RSA-PSS with SHA-1, its default, is refused')
  }
  const hash = readPssHash(readSingleDer(hashField, DER_TAG.sequence))
  const [maskId, maskHash, ...more] = readDer(readSingleDer(maskField, DER_TAG.sequence).content)
  if (maskId === undefined || maskHash === undefined || more.length > 0 || readObjectId(maskId) !== MGF1) {
    throw malformed('RSA-PSS is understood with the mask generation function MGF1 only')
  }
  if (readPssHash(maskHash) !== hash) throw malformed('RSA-PSS masks with another hash than it signs')
  const saltLength = readSmallInteger(readSingleDer(saltField, DER_TAG.integer), 0, 512)
  if (saltLength !== HASH_BYTES[hash]) throw malformed(`RSA-PSS with ${hash} and a salt of ${saltLength} bytes`)
  // AMD writes the trailer although it is the default, which DER does not allow.
  if (trailerField !== undefined) readSmallInteger(readSingleDer(trailerField, DER_TAG.integer), 1, 1)
  return { kind: 'rsa-pss', hash, saltLength }
}

function readPssHash(value: DerValue): Hash {
  if (value.tag !== DER_TAG.sequence) throw malformed('a hash algorithm is needed')
  const [id, parameters, ...more] = readDer(value.content)
  const hash = id === undefined ? undefined : PSS_HASHES[readObjectId(id)]
  if (hash === undefined) throw malformed('RSA-PSS with a hash that is not SHA-2')
  if (more.length > 0 || (parameters !== undefined && !equalBytes(parameters.encoded, NULL))) {
    throw malformed('SHA-2 takes no parameters')
  }
  return hash
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_SIGNATURE_ALGORITHM', `signature algorithm: ${why}`)
}
