/**
 * The two forms of an ECDSA signature: R ‖ S of fixed length (IEEE P1363, JOSE, TPMs, quotes) and Ecdsa-Sig-Value (DER,
 * RFC 3279 section 2.2.3). OpenSSL reads and writes DER; leaving the conversion to Node costs a third of a P-256 signature.
 */
import { concatBytes } from '#protocol/encoding'

/** @param signature R ‖ S, both big-endian and as long as a coordinate */
export function derSignature(signature: Uint8Array): Uint8Array {
  const half = signature.length / 2
  const [r, s] = [derInteger(signature.subarray(0, half)), derInteger(signature.subarray(half))]
  const length = r.length + s.length
  return concatBytes(length < 0x80 ? Uint8Array.of(0x30, length) : Uint8Array.of(0x30, 0x81, length), r, s)
}

/** R ‖ S of a signature that was made here. @param coordinateBytes of the curve */
export function rawSignature(der: Uint8Array, coordinateBytes: number): Uint8Array {
  const raw = new Uint8Array(2 * coordinateBytes)
  let offset = (der[1] ?? 0) < 0x80 ? 2 : 3 // behind the head of the sequence
  for (const index of [0, 1]) {
    const length = der[offset + 1] ?? 0
    const number = der.subarray(offset + 2, offset + 2 + length)
    const digits = number.subarray(number[0] === 0 ? 1 : 0)
    raw.set(digits, (index + 1) * coordinateBytes - digits.length)
    offset += 2 + length
  }
  return raw
}

function derInteger(number: Uint8Array): Uint8Array {
  let start = 0
  while (start < number.length - 1 && number[start] === 0) start++
  const sign = (number[start] ?? 0) >= 0x80 ? 1 : 0
  const encoded = new Uint8Array(2 + sign + number.length - start)
  encoded.set([0x02, encoded.length - 2])
  encoded.set(number.subarray(start), 2 + sign)
  return encoded
}
