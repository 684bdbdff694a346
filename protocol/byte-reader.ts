import { MalformedError } from './errors.ts'

/**
 * Bounds-checked cursor over untrusted bytes.
 *
 * Reads advance the cursor; every read past the end throws `MalformedError` with the code `ERR_TRUNCATED`, naming what
 * was being read. `bytes()` returns copies, so a later change of the input cannot change a parsed value.
 */
export class ByteReader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #what: string
  #offset = 0

  /** @param what name of the structure, for error messages: "TPMS_ATTEST" */
  constructor(bytes: Uint8Array, what: string) {
    // A plain view: the `slice` of a Buffer would not copy.
    this.#bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#what = what
  }

  get offset(): number {
    return this.#offset
  }

  get remaining(): number {
    return this.#bytes.byteLength - this.#offset
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1))
  }

  u16be(): number {
    return this.#view.getUint16(this.#take(2), false)
  }

  u16le(): number {
    return this.#view.getUint16(this.#take(2), true)
  }

  u32be(): number {
    return this.#view.getUint32(this.#take(4), false)
  }

  u32le(): number {
    return this.#view.getUint32(this.#take(4), true)
  }

  u64be(): bigint {
    return this.#view.getBigUint64(this.#take(8), false)
  }

  u64le(): bigint {
    return this.#view.getBigUint64(this.#take(8), true)
  }

  /** A copy of the next `length` bytes. */
  bytes(length: number): Uint8Array {
    const start = this.#take(length)
    return this.#bytes.slice(start, start + length)
  }

  skip(length: number): void {
    this.#take(length)
  }

  /** Refuses trailing bytes. */
  end(): void {
    if (this.remaining !== 0) {
      throw new MalformedError('ERR_TRAILING_BYTES', `${this.#what}: ${this.remaining} bytes after the end`)
    }
  }

  #take(length: number): number {
    if (!Number.isSafeInteger(length) || length < 0 || length > this.remaining) {
      throw new MalformedError(
        'ERR_TRUNCATED',
        `${this.#what}: needs ${length} bytes at offset ${this.#offset}, has ${this.remaining}`,
      )
    }
    const start = this.#offset
    this.#offset += length
    return start
  }
}
