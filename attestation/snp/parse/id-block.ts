/**
 * The ID block, by which a guest's owner signs what may be launched, and its authentication (AMD 56860, SNP_LAUNCH_FINISH):
 * bytes to fields. Little-endian.
 */
import { ByteReader } from '#protocol/byte-reader'
import { MalformedError } from '#protocol/errors'
import { SCALAR_BYTES } from './report.ts'

export const ID_BLOCK_BYTES = 96
export const ID_AUTH_BYTES = 4096
export const KEY_BYTES = 0x404
export const SIGNATURE_BYTES = 512
const ECDSA_P384_SHA384 = 1
const CURVE_P384 = 2
/** Filler behind keys, up to the next field. */
const KEY_GAP = 0x680 - 0x644

export interface IdBlock {
  readonly bytes: Uint8Array
  /** 48 bytes. */
  readonly launchDigest: Uint8Array
  /** 16 bytes each. */
  readonly familyId: Uint8Array
  readonly imageId: Uint8Array
  readonly guestSvn: number
  /** GUEST_POLICY. */
  readonly policy: bigint
}

/** Coordinates are 72 bytes, little-endian. */
export interface EcdsaKeyFields {
  /** The structure as it is hashed and signed, 1028 bytes. */
  readonly bytes: Uint8Array
  readonly x: Uint8Array
  readonly y: Uint8Array
}

export interface EcdsaSignatureFields {
  readonly r: Uint8Array
  readonly s: Uint8Array
}

export interface IdAuth {
  readonly blockSignature: EcdsaSignatureFields
  readonly idKey: EcdsaKeyFields
  /** Who vouches for the ID key; undefined when nobody does. */
  readonly author: { readonly key: EcdsaKeyFields; readonly idKeySignature: EcdsaSignatureFields } | undefined
}

/** Throws `MalformedError` ERR_SNP_ID_BLOCK. */
export function parseIdBlock(block: Uint8Array): IdBlock {
  if (block.length !== ID_BLOCK_BYTES) throw malformed(`an ID block has ${ID_BLOCK_BYTES} bytes, not ${block.length}`)
  const reader = new ByteReader(block, 'ID block')
  const launchDigest = reader.bytes(48)
  const familyId = reader.bytes(16)
  const imageId = reader.bytes(16)
  const version = reader.u32le()
  if (version !== 1) throw malformed(`ID block of version ${version}`)
  return { bytes: block.slice(), launchDigest, familyId, imageId, guestSvn: reader.u32le(), policy: reader.u64le() }
}

/** Throws `MalformedError` ERR_SNP_ID_BLOCK. */
export function parseIdAuth(auth: Uint8Array): IdAuth {
  if (auth.length !== ID_AUTH_BYTES) throw malformed(`ID authentication has ${ID_AUTH_BYTES} bytes, not ${auth.length}`)
  const reader = new ByteReader(auth, 'ID authentication')
  const idAlgorithm = reader.u32le()
  const authorAlgorithm = reader.u32le()
  if (idAlgorithm !== ECDSA_P384_SHA384 || authorAlgorithm > ECDSA_P384_SHA384) {
    throw malformed(`algorithms ${idAlgorithm} and ${authorAlgorithm}; 1, ECDSA P-384 with SHA-384, is known`)
  }
  zero(reader, 56)
  const blockSignature = readSignature(reader)
  const idKey = readKey(reader)
  zero(reader, KEY_GAP)
  if (authorAlgorithm !== ECDSA_P384_SHA384) {
    zero(reader, reader.remaining)
    return { blockSignature, idKey, author: undefined }
  }
  const idKeySignature = readSignature(reader)
  const key = readKey(reader)
  zero(reader, reader.remaining)
  return { blockSignature, idKey, author: { key, idKeySignature } }
}

function readKey(reader: ByteReader): EcdsaKeyFields {
  const bytes = reader.bytes(KEY_BYTES)
  const fields = new ByteReader(bytes, 'ECDSA key')
  const curve = fields.u32le()
  if (curve !== CURVE_P384) throw malformed(`a key on curve ${curve}; 2, P-384, is known`)
  const key = { bytes, x: fields.bytes(SCALAR_BYTES), y: fields.bytes(SCALAR_BYTES) }
  zero(fields, fields.remaining)
  return key
}

function readSignature(reader: ByteReader): EcdsaSignatureFields {
  const fields = { r: reader.bytes(SCALAR_BYTES), s: reader.bytes(SCALAR_BYTES) }
  zero(reader, SIGNATURE_BYTES - 2 * SCALAR_BYTES)
  return fields
}

function zero(reader: ByteReader, length: number): void {
  if (reader.bytes(length).some((byte) => byte !== 0)) throw malformed('bytes that are reserved are not zero')
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_SNP_ID_BLOCK', `SNP identity: ${why}`)
}
