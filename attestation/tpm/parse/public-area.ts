/**
 * TPMT_PUBLIC (TPM 2.0 part 2, section 12.2.4) of RSA and ECC keys: bytes to fields and back. Whether such a key may be
 * trusted for anything is decided in `../verify`.
 */
import { ByteReader } from '#protocol/byte-reader'
import type { CryptoProvider, HashAlgorithm } from '#protocol/crypto-provider'
import { concatBytes } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { CURVES, type CurveName, hashAlgorithm, hashAlgorithmId, TPM_ALG } from './algorithms.ts'
import { sized, u16, u32 } from './marshal.ts'

/** Bits of TPMA_OBJECT. */
export const OBJECT_ATTRIBUTE = {
  fixedTPM: 0x0000_0002,
  stClear: 0x0000_0004,
  fixedParent: 0x0000_0010,
  sensitiveDataOrigin: 0x0000_0020,
  userWithAuth: 0x0000_0040,
  adminWithPolicy: 0x0000_0080,
  noDA: 0x0000_0400,
  encryptedDuplication: 0x0000_0800,
  restricted: 0x0001_0000,
  decrypt: 0x0002_0000,
  sign: 0x0004_0000,
} as const

const MAX_BUFFER = 1024

export interface SymmetricDefinition {
  readonly algorithm: number
  readonly keyBits: number
  readonly mode: number
}

export interface KeyScheme {
  readonly algorithm: number
  readonly hash: HashAlgorithm
}

interface PublicAreaBase {
  readonly nameAlgorithm: HashAlgorithm
  /** TPMA_OBJECT bits. */
  readonly attributes: number
  readonly authPolicy: Uint8Array
  readonly symmetric: SymmetricDefinition | null
  readonly scheme: KeyScheme | null
}

export interface RsaPublicArea extends PublicAreaBase {
  readonly type: 'rsa'
  readonly keyBits: number
  /** 0 stands for 65537. */
  readonly exponent: number
  readonly modulus: Uint8Array
}

export interface EccPublicArea extends PublicAreaBase {
  readonly type: 'ecc'
  readonly curve: CurveName
  readonly kdf: KeyScheme | null
  readonly x: Uint8Array
  readonly y: Uint8Array
}

export type PublicArea = RsaPublicArea | EccPublicArea

/** Throws `MalformedError` ERR_TPM_PUBLIC, ERR_TPM_ALGORITHM, ERR_TRUNCATED or ERR_TRAILING_BYTES. */
export function parsePublicArea(bytes: Uint8Array): PublicArea {
  const reader = new ByteReader(bytes, 'TPMT_PUBLIC')
  const type = reader.u16be()
  const nameAlgorithm = hashAlgorithm(reader.u16be(), 'TPMT_PUBLIC nameAlg')
  const attributes = reader.u32be()
  const authPolicy = buffer(reader)
  if (type !== TPM_ALG.RSA && type !== TPM_ALG.ECC) {
    throw new MalformedError('ERR_TPM_PUBLIC', `TPMT_PUBLIC of type 0x${type.toString(16)}, RSA or ECC is needed`)
  }
  const base = { nameAlgorithm, attributes, authPolicy, symmetric: readSymmetric(reader), scheme: readScheme(reader) }
  const area: PublicArea =
    type === TPM_ALG.RSA
      ? { ...base, type: 'rsa', keyBits: reader.u16be(), exponent: reader.u32be(), modulus: buffer(reader) }
      : {
          ...base,
          type: 'ecc',
          curve: readCurve(reader),
          kdf: readScheme(reader),
          x: buffer(reader),
          y: buffer(reader),
        }
  reader.end()
  return area
}

export function encodePublicArea(area: PublicArea): Uint8Array {
  const base = concatBytes(
    u16(area.type === 'rsa' ? TPM_ALG.RSA : TPM_ALG.ECC),
    u16(hashAlgorithmId(area.nameAlgorithm)),
    u32(area.attributes),
    sized(area.authPolicy),
    area.symmetric === null
      ? u16(TPM_ALG.NULL)
      : concatBytes(u16(area.symmetric.algorithm), u16(area.symmetric.keyBits), u16(area.symmetric.mode)),
    encodeScheme(area.scheme),
  )
  return area.type === 'rsa'
    ? concatBytes(base, u16(area.keyBits), u32(area.exponent), sized(area.modulus))
    : concatBytes(base, u16(curveId(area.curve)), encodeScheme(area.kdf), sized(area.x), sized(area.y))
}

/** The object's name: nameAlg ‖ H(TPMT_PUBLIC), over the bytes as received (part 1, section 16). */
export function objectName(crypto: CryptoProvider, publicArea: Uint8Array): Uint8Array {
  const { nameAlgorithm } = parsePublicArea(publicArea)
  return concatBytes(u16(hashAlgorithmId(nameAlgorithm)), digest(crypto, nameAlgorithm, publicArea))
}

/** The qualified name of a primary object: nameAlg ‖ H(hierarchy handle ‖ name). */
export function primaryQualifiedName(crypto: CryptoProvider, hierarchy: number, name: Uint8Array): Uint8Array {
  const algorithm = hashAlgorithm(new ByteReader(name, 'TPM name').u16be(), 'TPM name')
  return concatBytes(name.slice(0, 2), digest(crypto, algorithm, concatBytes(u32(hierarchy), name)))
}

function digest(crypto: CryptoProvider, algorithm: HashAlgorithm, bytes: Uint8Array): Uint8Array {
  const hash = crypto.createHash(algorithm)
  hash.update(bytes)
  return hash.digest()
}

function buffer(reader: ByteReader): Uint8Array {
  const length = reader.u16be()
  if (length > MAX_BUFFER) {
    throw new MalformedError('ERR_TPM_PUBLIC', `TPMT_PUBLIC: buffer of ${length} bytes, at most ${MAX_BUFFER} are read`)
  }
  return reader.bytes(length)
}

function readSymmetric(reader: ByteReader): SymmetricDefinition | null {
  const algorithm = reader.u16be()
  return algorithm === TPM_ALG.NULL ? null : { algorithm, keyBits: reader.u16be(), mode: reader.u16be() }
}

function readScheme(reader: ByteReader): KeyScheme | null {
  const algorithm = reader.u16be()
  return algorithm === TPM_ALG.NULL ? null : { algorithm, hash: hashAlgorithm(reader.u16be(), 'TPMT_PUBLIC scheme') }
}

function encodeScheme(scheme: KeyScheme | null): Uint8Array {
  if (scheme === null) return u16(TPM_ALG.NULL)
  return concatBytes(u16(scheme.algorithm), u16(hashAlgorithmId(scheme.hash)))
}

function readCurve(reader: ByteReader): CurveName {
  const id = reader.u16be()
  const curve = CURVES[id]
  if (curve === undefined) throw new MalformedError('ERR_TPM_PUBLIC', `TPMT_PUBLIC: curve 0x${id.toString(16)}`)
  return curve
}

function curveId(curve: CurveName): number {
  return { 'P-256': 3, 'P-384': 4, 'P-521': 5 }[curve]
}
