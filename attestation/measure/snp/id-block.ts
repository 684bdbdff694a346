/**
 * Makes an ID block and its authentication: the firmware launches a guest with them only when its launch digest is the
 * signed one, and states in every report whose keys signed (AMD 56860, SNP_LAUNCH_FINISH).
 */
import { hash, type KeyObject, sign } from 'node:crypto'
import { concatBytes } from '#protocol/encoding'
import { UsageError } from '#protocol/errors'
import { ID_AUTH_BYTES, ID_BLOCK_BYTES, KEY_BYTES, SIGNATURE_BYTES } from '../../snp/parse/id-block.ts'
import { SCALAR_BYTES } from '../../snp/parse/report.ts'
import { isP384 } from '../../snp/verify/report-signature.ts'
import { DIGEST_BYTES } from './launch-context.ts'

export interface IdBlockFields {
  /** 48 bytes. */
  readonly launchDigest: Uint8Array
  /** 16 bytes each. Default: zeros. */
  readonly familyId?: Uint8Array
  readonly imageId?: Uint8Array
  /** Default 0. */
  readonly guestSvn?: number
  /** GUEST_POLICY that the guest must be launched with. Default 0x30000: hyper-threading allowed, nothing else. */
  readonly policy?: bigint
}

export interface IdKeys {
  /** Private, P-384. */
  readonly idKey: KeyObject
  /** Private, P-384; vouches for the ID key. */
  readonly authorKey?: KeyObject
}

const ID_BYTES = 16
const VERSION = 1
const ECDSA_P384_SHA384 = 1
const CURVE_P384 = 2
const DEFAULT_POLICY = 0x30000n
const COORDINATE_BYTES = 48

/** 96 bytes. Throws `UsageError` ERR_SNP_ID_BLOCK for a field that does not fit. */
export function createIdBlock(fields: IdBlockFields): Uint8Array {
  const { launchDigest, familyId, imageId, guestSvn = 0, policy = DEFAULT_POLICY } = fields
  checkLength(launchDigest, DIGEST_BYTES, 'launch digest')
  checkLength(familyId, ID_BYTES, 'family id')
  checkLength(imageId, ID_BYTES, 'image id')
  if (!Number.isInteger(guestSvn) || guestSvn < 0 || guestSvn > 0xffff_ffff || policy < 0n || policy >= 2n ** 64n) {
    throw new UsageError('ERR_SNP_ID_BLOCK', 'the guest SVN has 32 bits, the policy 64')
  }
  const block = new Uint8Array(ID_BLOCK_BYTES)
  block.set(launchDigest, 0x00)
  if (familyId !== undefined) block.set(familyId, 0x30)
  if (imageId !== undefined) block.set(imageId, 0x40)
  const view = new DataView(block.buffer)
  view.setUint32(0x50, VERSION, true)
  view.setUint32(0x54, guestSvn, true)
  view.setBigUint64(0x58, policy, true)
  return block
}

/** 4096 bytes. Throws `UsageError` ERR_SNP_ID_KEY for a key that is not P-384. */
export function createIdAuth(block: Uint8Array, { idKey, authorKey }: IdKeys): Uint8Array {
  const auth = new Uint8Array(ID_AUTH_BYTES)
  const view = new DataView(auth.buffer)
  const idKeyFields = keyFields(idKey)
  view.setUint32(0x000, ECDSA_P384_SHA384, true)
  auth.set(signatureFields(block, idKey), 0x040)
  auth.set(idKeyFields, 0x240)
  if (authorKey !== undefined) {
    view.setUint32(0x004, ECDSA_P384_SHA384, true)
    auth.set(signatureFields(idKeyFields, authorKey), 0x680)
    auth.set(keyFields(authorKey), 0x880)
  }
  return auth
}

/** ID_KEY_DIGEST and AUTHOR_KEY_DIGEST of a report, 48 bytes. @param key private or public, P-384 */
export function idKeyDigest(key: KeyObject): Uint8Array {
  return hash('sha384', keyFields(key), 'buffer')
}

/** The structure of a public key, 1028 bytes. */
function keyFields(key: KeyObject): Uint8Array {
  checkKey(key)
  const { x = '', y = '' } = key.export({ format: 'jwk' })
  const little = (coordinate: string): Uint8Array => scalar(new Uint8Array(Buffer.from(coordinate, 'base64url')))
  const fields = new Uint8Array(KEY_BYTES)
  fields.set(concatBytes(new Uint8Array([CURVE_P384, 0, 0, 0]), little(x), little(y)))
  return fields
}

/** The structure of a signature, 512 bytes. */
function signatureFields(signed: Uint8Array, key: KeyObject): Uint8Array {
  checkKey(key)
  const signature = new Uint8Array(sign('sha384', signed, { key, dsaEncoding: 'ieee-p1363' }))
  const fields = new Uint8Array(SIGNATURE_BYTES)
  fields.set(scalar(signature.subarray(0, COORDINATE_BYTES)))
  fields.set(scalar(signature.subarray(COORDINATE_BYTES)), SCALAR_BYTES)
  return fields
}

/** Little-endian, 72 bytes. */
function scalar(big: Uint8Array): Uint8Array {
  const little = new Uint8Array(SCALAR_BYTES)
  little.set(big.toReversed())
  return little
}

function checkKey(key: KeyObject): void {
  if (isP384(key)) return
  throw new UsageError('ERR_SNP_ID_KEY', 'ID and author keys are ECDSA keys on P-384', {
    hint: 'Make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384`.',
  })
}

function checkLength(bytes: Uint8Array | undefined, length: number, what: string): void {
  if (bytes === undefined || bytes.length === length) return
  throw new UsageError('ERR_SNP_ID_BLOCK', `a ${what} of ${bytes.length} bytes; it has ${length}`)
}
