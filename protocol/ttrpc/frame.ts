/**
 * ttrpc framing: a 10-byte header (data length, stream id, message type, flags; big-endian) and the data. Every header is
 * well-formed, so decoding never fails; a frame above the limit is consumed, thrown away and reported.
 */

export const HEADER_BYTES = 10

/** The protocol's own limit for the data of one frame. */
export const MAX_FRAME_BYTES: number = 4 * 1024 * 1024

export const MessageType = { request: 1, response: 2, data: 3 } as const

/** On Request and Data: the sender will send no more on this stream. */
export const FLAG_REMOTE_CLOSED = 0x01
/** On Request: Data frames will follow. */
export const FLAG_REMOTE_OPEN = 0x02
/** On Data: the frame holds no message (as opposed to an empty one). */
export const FLAG_NO_DATA = 0x04

export interface Frame {
  readonly streamId: number
  /** A value of `MessageType`, or one this version does not know. */
  readonly type: number
  readonly flags: number
  readonly data: Uint8Array
  /** Bytes that the header announced, when that was above the limit; `data` is then empty. */
  readonly oversize?: number
}

/** @throws RangeError when the data exceeds what the length field may say. Callers check their own limit before. */
export function encodeFrame(frame: Frame): Uint8Array {
  if (frame.data.byteLength > MAX_FRAME_BYTES) throw new RangeError(`frame of ${frame.data.byteLength} bytes`)
  const bytes = new Uint8Array(HEADER_BYTES + frame.data.byteLength)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, frame.data.byteLength)
  view.setUint32(4, frame.streamId)
  view.setUint8(8, frame.type)
  view.setUint8(9, frame.flags)
  bytes.set(frame.data, HEADER_BYTES)
  return bytes
}

interface Header {
  readonly length: number
  readonly streamId: number
  readonly type: number
  readonly flags: number
}

/**
 * Cuts a byte stream into frames. Memory follows the bytes received, not the length a header claims: the buffer of a
 * frame doubles as its bytes arrive, and the data of an oversize frame is never kept.
 */
export class FrameDecoder {
  readonly #maxBytes: number
  readonly #headerBytes = new Uint8Array(HEADER_BYTES)
  #headerFilled = 0
  #header: Header | undefined
  #body = new Uint8Array(0)
  #filled = 0

  /** @param maxBytes largest data of one frame that is kept, at most `MAX_FRAME_BYTES` */
  constructor(maxBytes: number = MAX_FRAME_BYTES) {
    this.#maxBytes = Math.min(maxBytes, MAX_FRAME_BYTES)
  }

  /** True when the stream may end here without cutting a frame in two. */
  get atBoundary(): boolean {
    return this.#headerFilled === 0
  }

  /** The frames that `chunk` completes. The caller may reuse `chunk` afterwards. */
  *push(chunk: Uint8Array): Generator<Frame, void, undefined> {
    let rest = chunk
    while (rest.byteLength > 0 || (this.#header !== undefined && this.#filled === this.#header.length)) {
      if (this.#header === undefined) {
        rest = this.#takeHeader(rest)
        continue
      }
      rest = this.#takeBody(this.#header, rest)
      if (this.#filled === this.#header.length) yield this.#finish(this.#header)
    }
  }

  #takeHeader(chunk: Uint8Array): Uint8Array {
    const part = chunk.subarray(0, HEADER_BYTES - this.#headerFilled)
    this.#headerBytes.set(part, this.#headerFilled)
    this.#headerFilled += part.byteLength
    if (this.#headerFilled === HEADER_BYTES) {
      const view = new DataView(this.#headerBytes.buffer)
      this.#header = {
        length: view.getUint32(0),
        streamId: view.getUint32(4),
        type: view.getUint8(8),
        flags: view.getUint8(9),
      }
    }
    return chunk.subarray(part.byteLength)
  }

  #takeBody(header: Header, chunk: Uint8Array): Uint8Array {
    const part = chunk.subarray(0, header.length - this.#filled)
    if (header.length <= this.#maxBytes) {
      this.#reserve(this.#filled + part.byteLength, header.length)
      this.#body.set(part, this.#filled)
    }
    this.#filled += part.byteLength
    return chunk.subarray(part.byteLength)
  }

  #reserve(needed: number, final: number): void {
    if (needed <= this.#body.byteLength) return
    const grown = new Uint8Array(Math.min(Math.max(needed, 2 * this.#body.byteLength), final))
    grown.set(this.#body.subarray(0, this.#filled))
    this.#body = grown
  }

  #finish(header: Header): Frame {
    const { length, streamId, type, flags } = header
    const frame: Frame =
      length > this.#maxBytes
        ? { streamId, type, flags, data: new Uint8Array(0), oversize: length }
        : { streamId, type, flags, data: this.#body }
    this.#header = undefined
    this.#headerFilled = 0
    this.#body = new Uint8Array(0)
    this.#filled = 0
    return frame
  }
}
