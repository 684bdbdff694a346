import test from 'ava'
import fc from 'fast-check'
import { encodeFrame, type Frame, FrameDecoder, MAX_FRAME_BYTES } from '#protocol/ttrpc/frame'

const frame = fc.record({
  streamId: fc.nat(0xffffffff),
  type: fc.nat(255),
  flags: fc.nat(255),
  data: fc.uint8Array({ maxLength: 200 }),
})

function concat(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

test('a header is length, stream id, type and flags, big-endian', (t) => {
  const bytes = encodeFrame({ streamId: 0x01020304, type: 3, flags: 5, data: Uint8Array.of(9, 8) })
  t.deepEqual([...bytes], [0, 0, 0, 2, 1, 2, 3, 4, 3, 5, 9, 8])
})

test('frames survive being cut into pieces of any size', (t) => {
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 8 }), fc.integer({ min: 1, max: 50 }), (frames, size) => {
      const decoder = new FrameDecoder()
      const bytes = concat(frames.map(encodeFrame))
      const decoded: Frame[] = []
      for (let at = 0; at < bytes.byteLength; at += size) decoded.push(...decoder.push(bytes.subarray(at, at + size)))
      t.deepEqual(decoded, frames)
      t.true(decoder.atBoundary)
    }),
  )
})

test('a frame cut at any byte gives nothing and is known to be incomplete', (t) => {
  const bytes = encodeFrame({ streamId: 1, type: 1, flags: 0, data: new Uint8Array(20) })
  for (let length = 1; length < bytes.byteLength; length += 1) {
    const decoder = new FrameDecoder()
    t.deepEqual([...decoder.push(bytes.subarray(0, length))], [])
    t.false(decoder.atBoundary)
  }
})

test('a frame above the limit is consumed, reported without its data, and the next one is read', (t) => {
  const decoder = new FrameDecoder(16)
  const bytes = concat([
    encodeFrame({ streamId: 1, type: 1, flags: 0, data: new Uint8Array(17).fill(7) }),
    encodeFrame({ streamId: 3, type: 1, flags: 0, data: new Uint8Array(16).fill(8) }),
  ])
  const [first, second] = [...decoder.push(bytes)]
  t.like(first, { streamId: 1, oversize: 17 })
  t.is(first?.data.byteLength, 0)
  t.deepEqual(second?.data, new Uint8Array(16).fill(8))
})

test('an announced length costs no memory before its bytes arrive', (t) => {
  const decoders: FrameDecoder[] = []
  const header = new Uint8Array(11)
  new DataView(header.buffer).setUint32(0, MAX_FRAME_BYTES)
  const before = process.memoryUsage().arrayBuffers
  for (let count = 0; count < 500; count += 1) {
    const decoder = new FrameDecoder()
    t.deepEqual([...decoder.push(header)], [])
    decoders.push(decoder)
  }
  t.true(process.memoryUsage().arrayBuffers - before < 1024 * 1024)
  t.is(decoders.length, 500)
})

test('no sequence of bytes makes the decoder throw', (t) => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 64 }), { maxLength: 20 }), (chunks) => {
      const decoder = new FrameDecoder(32)
      const frames = chunks.flatMap((chunk) => [...decoder.push(chunk)])
      t.true(frames.every(({ data }) => data.byteLength <= 32))
    }),
  )
})

test('the data of a decoded frame does not change when the chunk is reused', (t) => {
  const bytes = encodeFrame({ streamId: 1, type: 1, flags: 0, data: Uint8Array.of(1, 2, 3) })
  const [decoded] = [...new FrameDecoder().push(bytes)]
  bytes.fill(0xff)
  t.deepEqual(decoded?.data, Uint8Array.of(1, 2, 3))
})
