/** TPM public areas as keys, which is what signature checks take, and as SubjectPublicKeyInfo. */
import { createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto'
import { toBase64Url } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { COORDINATE_BYTES } from '../parse/algorithms.ts'
import type { PublicArea } from '../parse/public-area.ts'

const DEFAULT_EXPONENT = 65537

/** DER. Throws as `publicKeyOf`. */
export function subjectPublicKeyInfo(area: PublicArea): Uint8Array {
  return new Uint8Array(publicKeyOf(area).export({ format: 'der', type: 'spki' }))
}

/** Throws `MalformedError` ERR_TPM_PUBLIC when the numbers are no key, for example a point off the curve. */
export function publicKeyOf(area: PublicArea): KeyObject {
  try {
    return createPublicKey({ key: toJwk(area), format: 'jwk' })
  } catch (cause) {
    throw new MalformedError('ERR_TPM_PUBLIC', `TPMT_PUBLIC: not a valid ${area.type.toUpperCase()} key`, { cause })
  }
}

function toJwk(area: PublicArea): JsonWebKey {
  if (area.type === 'rsa') {
    const exponent = area.exponent === 0 ? DEFAULT_EXPONENT : area.exponent
    const e = Uint8Array.of(exponent >>> 24, (exponent >>> 16) & 0xff, (exponent >>> 8) & 0xff, exponent & 0xff)
    return { kty: 'RSA', n: toBase64Url(area.modulus), e: toBase64Url(e.slice(e.findIndex((byte) => byte !== 0))) }
  }
  const length = COORDINATE_BYTES[area.curve]
  return { kty: 'EC', crv: area.curve, x: toBase64Url(pad(area.x, length)), y: toBase64Url(pad(area.y, length)) }
}

/** Left-padded to `length`; TPMs may leave out leading zeros. Throws RangeError when it does not fit. */
export function pad(bytes: Uint8Array, length: number): Uint8Array {
  const padded = new Uint8Array(length)
  padded.set(bytes, length - bytes.length)
  return padded
}
