/**
 * NaCl's secretbox, XSalsa20 with Poly1305: what cosign encrypts private keys with, and OpenSSL does not have. For a few
 * hundred bytes, once per command; nothing in the guest uses it.
 */
import { timingSafeEqual } from 'node:crypto'

const KEY_BYTES = 32
const NONCE_BYTES = 24
const TAG_BYTES = 16
/** "expand 32-byte k" as four little-endian words. */
const SIGMA = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574] as const
/** The quarter rounds of a double round: columns, then rows (the Salsa20 specification, section 4 and 5). */
const QUARTERS = [
  [0, 4, 8, 12],
  [5, 9, 13, 1],
  [10, 14, 2, 6],
  [15, 3, 7, 11],
  [0, 1, 2, 3],
  [5, 6, 7, 4],
  [10, 11, 8, 9],
  [15, 12, 13, 14],
] as const

/** Undefined when the tag does not fit. */
export function openSecretbox(key: Uint8Array, nonce: Uint8Array, box: Uint8Array): Uint8Array | undefined {
  if (key.length !== KEY_BYTES || nonce.length !== NONCE_BYTES || box.length < TAG_BYTES) return undefined
  const sealed = box.subarray(TAG_BYTES)
  const stream = keyStream(key, nonce, 32 + sealed.length)
  if (!timingSafeEqual(poly1305(stream.subarray(0, 32), sealed), box.subarray(0, TAG_BYTES))) return undefined
  return xor(sealed, stream.subarray(32))
}

/** The inverse: keys are read here and never written, so only tests seal. */
export function sealSecretbox(key: Uint8Array, nonce: Uint8Array, plain: Uint8Array): Uint8Array {
  const stream = keyStream(key, nonce, 32 + plain.length)
  const sealed = xor(plain, stream.subarray(32))
  return Buffer.concat([poly1305(stream.subarray(0, 32), sealed), sealed])
}

/** XSalsa20: HSalsa20 turns key and the first 16 bytes of the nonce into the key for the other 8. */
function keyStream(key: Uint8Array, nonce: Uint8Array, length: number): Uint8Array {
  const inner = rounds(block(key, words(nonce.subarray(0, 16))))
  const subkey = new Uint8Array(KEY_BYTES)
  const view = new DataView(subkey.buffer)
  for (const [index, word] of [0, 5, 10, 15, 6, 7, 8, 9].entries()) view.setUint32(4 * index, inner[word] ?? 0, true)
  const stream = new Uint8Array(Math.ceil(length / 64) * 64)
  const output = new DataView(stream.buffer)
  const rest = words(nonce.subarray(16))
  for (let count = 0; 64 * count < length; count++) {
    const input = block(subkey, [rest[0] ?? 0, rest[1] ?? 0, count, 0])
    const mixed = rounds(input)
    for (let word = 0; word < 16; word++) {
      output.setUint32(64 * count + 4 * word, ((mixed[word] ?? 0) + (input[word] ?? 0)) >>> 0, true)
    }
  }
  return stream.subarray(0, length)
}

function block(key: Uint8Array, input: readonly number[]): Uint32Array {
  const k = words(key)
  const parts = [SIGMA[0], ...k.slice(0, 4), SIGMA[1], ...input, SIGMA[2], ...k.slice(4), SIGMA[3]]
  return Uint32Array.from(parts)
}

function rounds(input: Uint32Array): Uint32Array {
  const x = Uint32Array.from(input)
  const step = (to: number, a: number, b: number, shift: number): void => {
    const sum = ((x[a] ?? 0) + (x[b] ?? 0)) >>> 0
    x[to] = (x[to] ?? 0) ^ ((sum << shift) | (sum >>> (32 - shift)))
  }
  for (let round = 0; round < 10; round++) {
    for (const [a, b, c, d] of QUARTERS) {
      step(b, a, d, 7)
      step(c, b, a, 9)
      step(d, c, b, 13)
      step(a, d, c, 18)
    }
  }
  return x
}

/** RFC 8439 2.5. */
function poly1305(key: Uint8Array, message: Uint8Array): Uint8Array {
  const prime = (1n << 130n) - 5n
  const r = number(key.subarray(0, 16)) & 0x0ffffffc0ffffffc0ffffffc0fffffffn
  let sum = 0n
  for (let at = 0; at < message.length; at += 16) {
    const part = message.subarray(at, at + 16)
    sum = ((sum + number(part) + (1n << BigInt(8 * part.length))) * r) % prime
  }
  sum += number(key.subarray(16, 32))
  return Uint8Array.from({ length: TAG_BYTES }, (_, index) => Number((sum >> BigInt(8 * index)) & 255n))
}

function number(bytes: Uint8Array): bigint {
  return bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n)
}

function words(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return Array.from({ length: bytes.length / 4 }, (_, index) => view.getUint32(4 * index, true))
}

function xor(a: Uint8Array, b: Uint8Array): Uint8Array {
  return a.map((byte, index) => byte ^ (b[index] ?? 0))
}
