/** Big-endian marshalling as the TPM library does it (TPM 2.0 part 2, section 4.3): integers and TPM2B buffers. */
import { concatBytes } from '#protocol/encoding'

export function u8(value: number): Uint8Array {
  return Uint8Array.of(value & 0xff)
}

export function u16(value: number): Uint8Array {
  return Uint8Array.of((value >> 8) & 0xff, value & 0xff)
}

export function u32(value: number): Uint8Array {
  return Uint8Array.of((value >>> 24) & 0xff, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff)
}

/** A TPM2B: two bytes of length, then the content. */
export function sized(...content: readonly Uint8Array[]): Uint8Array {
  const bytes = concatBytes(...content)
  return concatBytes(u16(bytes.length), bytes)
}
