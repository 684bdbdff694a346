/**
 * The key that answers are encrypted to, as a JWK (`tee-pubkey` of the KBS protocol). Only the members listed here exist:
 * others are dropped before anything is hashed, as reference servers do. RSA1_5 is refused (padding oracles).
 */
import type { JsonObject } from './canonical-json.ts'
import { fromBase64Url } from './encoding.ts'
import type { JsonFields } from './json-fields.ts'

export interface EcTeePublicKey {
  readonly kty: 'EC'
  readonly crv: 'P-256' | 'P-521'
  readonly alg: 'ECDH-ES+A256KW'
  /** Coordinates, base64url, as long as the field (32 or 66 bytes). */
  readonly x: string
  readonly y: string
}

export interface RsaTeePublicKey {
  readonly kty: 'RSA'
  readonly alg: 'RSA-OAEP-256'
  readonly n: string
  readonly e: string
}

export type TeePublicKey = EcTeePublicKey | RsaTeePublicKey

const COORDINATE_BYTES = { 'P-256': 32, 'P-521': 66 } as const
const MIN_RSA_BYTES = 256
const MAX_RSA_BYTES = 1024

/** Throws `MalformedError` with the code of `fields`, or ERR_BASE64. */
export function parseTeePublicKey(fields: JsonFields): TeePublicKey {
  if (fields.oneOf('kty', ['EC', 'RSA']) === 'EC') {
    const crv = fields.oneOf('crv', ['P-256', 'P-521'])
    const alg = fields.oneOf('alg', ['ECDH-ES+A256KW'])
    return { kty: 'EC', crv, alg, x: coordinate(fields, 'x', crv), y: coordinate(fields, 'y', crv) }
  }
  const alg = fields.oneOf('alg', ['RSA-OAEP-256'])
  const n = fields.string('n', 2048)
  const modulusBytes = fromBase64Url(n, `${fields.path}.n`).length
  if (modulusBytes < MIN_RSA_BYTES || modulusBytes > MAX_RSA_BYTES) {
    throw fields.error('n', `modulus of ${modulusBytes} bytes, ${MIN_RSA_BYTES} to ${MAX_RSA_BYTES} are accepted`)
  }
  const e = fields.string('e', 16)
  fromBase64Url(e, `${fields.path}.e`)
  return { kty: 'RSA', alg, n, e }
}

/** The members that are sent and hashed, and no others. */
export function teePublicKeyJson(key: TeePublicKey): JsonObject {
  return key.kty === 'EC'
    ? { kty: key.kty, crv: key.crv, alg: key.alg, x: key.x, y: key.y }
    : { kty: key.kty, alg: key.alg, n: key.n, e: key.e }
}

function coordinate(fields: JsonFields, name: 'x' | 'y', crv: EcTeePublicKey['crv']): string {
  const text = fields.string(name, 128)
  const length = fromBase64Url(text, `${fields.path}.${name}`).length
  if (length !== COORDINATE_BYTES[crv]) {
    throw fields.error(name, `${length} bytes, a ${crv} coordinate has ${COORDINATE_BYTES[crv]}`)
  }
  return text
}
