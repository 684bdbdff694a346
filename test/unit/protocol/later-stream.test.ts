import test from 'ava'
import type { ByteStream } from '#protocol/byte-stream'
import { laterStream } from '#protocol/later-stream'

/** Answers whatever is written. */
function echo(): { stream: ByteStream; destroyed: () => boolean } {
  const told: Uint8Array[] = []
  let isDestroyed = false
  return {
    stream: {
      read: async () => told.shift() ?? null,
      write: async (bytes) => void told.push(bytes),
      end: async () => undefined,
      destroy: () => {
        isDestroyed = true
      },
    },
    destroyed: () => isDestroyed,
  }
}

test('what is written and read before a stream is open waits for it', async (t) => {
  const opening = Promise.withResolvers<ByteStream>()
  const stream = laterStream(opening.promise)
  const written = stream.write(Uint8Array.of(1, 2))
  opening.resolve(echo().stream)
  await written
  t.deepEqual(await stream.read(), Uint8Array.of(1, 2))
  await stream.end()
})

test('a stream that is given up before it is open ends who waits, and is ended when it opens', async (t) => {
  const opening = Promise.withResolvers<ByteStream>()
  const stream = laterStream(opening.promise)
  const read = stream.read()
  const written = stream.write(Uint8Array.of(1))
  stream.destroy()
  t.is(await read, null)
  await t.throwsAsync(written, { code: 'ERR_STREAM_BROKEN' })
  const { stream: late, destroyed } = echo()
  opening.resolve(late)
  await opening.promise
  t.true(destroyed())
})

test('a stream that cannot be opened breaks for who waits', async (t) => {
  const stream = laterStream(Promise.reject(new Error('nobody there')))
  await t.throwsAsync(stream.read(), { message: 'nobody there' })
  await t.throwsAsync(stream.write(Uint8Array.of(1)), { message: 'nobody there' })
  t.notThrows(() => stream.destroy())
})
