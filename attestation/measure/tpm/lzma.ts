/** LZMA "alone" streams, as EDK II packs firmware volumes: 5 bytes of properties, 8 of unpacked size, data. */
import { createRequire } from 'node:module'
import { ByteReader } from '#protocol/byte-reader'
import { MalformedError } from '#protocol/errors'

const MAX_UNPACKED_BYTES = 64 * 1024 * 1024

/** Throws `MalformedError` ERR_FIRMWARE. */
export function unpackLzma(packed: Uint8Array): Uint8Array {
  const header = new ByteReader(packed, 'LZMA stream')
  header.skip(5)
  const size = header.u64le()
  if (size > BigInt(MAX_UNPACKED_BYTES)) {
    throw new MalformedError('ERR_FIRMWARE', `packed firmware says it has ${size} bytes, limit ${MAX_UNPACKED_BYTES}`)
  }
  let unpacked: unknown
  try {
    unpacked = decompress(packed)
  } catch (cause) {
    throw new MalformedError('ERR_FIRMWARE', 'packed firmware cannot be unpacked', { cause })
  }
  if (!(unpacked instanceof Uint8Array) || BigInt(unpacked.length) !== size) {
    throw new MalformedError('ERR_FIRMWARE', `packed firmware does not unpack to the ${size} bytes it says it has`)
  }
  return unpacked
}

/** Loaded untyped: the package's types are its sources, which our compiler settings do not accept. */
function decompress(packed: Uint8Array): unknown {
  const library: unknown = createRequire(import.meta.url)('lzma1')
  if (typeof library !== 'object' || library === null || !('decompress' in library)) throw new Error('lzma1 is broken')
  if (typeof library.decompress !== 'function') throw new Error('lzma1 is broken')
  return library.decompress(packed)
}
