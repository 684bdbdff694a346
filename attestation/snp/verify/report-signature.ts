/** Was the report signed by this key? (AMD 56860 section 7.3 and chapter 10: ECDSA P-384 over SHA-384.) */
import { type KeyObject, verify } from 'node:crypto'
import { derSignature } from '../../x509/ecdsa-value.ts'
import { SIGNED_BYTES, type SnpReport } from '../parse/report.ts'

export const ECDSA_P384_SHA384 = 1
const COORDINATE_BYTES = 48
/** Order of P-384. */
const ORDER = BigInt(
  '0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973',
)

/** False as well for another algorithm, another kind of key, and numbers that no signature has. */
export function verifyReportSignature(report: SnpReport, key: KeyObject): boolean {
  if (report.signatureAlgorithm !== ECDSA_P384_SHA384 || !isP384(key)) return false
  const signature = readEcdsaSignature(report.signature)
  if (signature === undefined) return false
  return verify('sha384', report.bytes.subarray(0, SIGNED_BYTES), key, derSignature(signature))
}

/**
 * AMD's form of a signature as r ‖ s, 48 bytes each and big-endian. Undefined when a number is zero, not below the curve's
 * order, or followed by something else than zeros: more than one form would mean the same signature.
 */
export function readEcdsaSignature({ r, s }: SnpReport['signature']): Uint8Array | undefined {
  const signature = new Uint8Array(2 * COORDINATE_BYTES)
  for (const [index, scalar] of [r, s].entries()) {
    const big = scalar.slice(0, COORDINATE_BYTES).reverse()
    const number = BigInt(`0x${Buffer.from(big).toString('hex')}`)
    if (number === 0n || number >= ORDER || scalar.subarray(COORDINATE_BYTES).some((byte) => byte !== 0))
      return undefined
    signature.set(big, index * COORDINATE_BYTES)
  }
  return signature
}

/** Answers by key: asking a key for its details costs a noticeable part of a verdict. */
const onP384 = new WeakMap<KeyObject, boolean>()

export function isP384(key: KeyObject): boolean {
  const known = onP384.get(key)
  if (known !== undefined) return known
  const answer = key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'secp384r1'
  onP384.set(key, answer)
  return answer
}
