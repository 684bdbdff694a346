/** A byte stream that is still being opened: who reads or writes waits for it. */
import type { ByteStream } from './byte-stream.ts'
import { UnavailableError } from './errors.ts'

/** Rejects what waits when the opening does. A stream that opens after `destroy` is destroyed. */
export function laterStream(opening: Promise<ByteStream>): ByteStream {
  const destroyed = Promise.withResolvers<undefined>()
  opening.catch(() => undefined)
  const opened = async (): Promise<ByteStream> => {
    const stream = await Promise.race([opening, destroyed.promise])
    if (stream === undefined) {
      throw new UnavailableError('ERR_STREAM_BROKEN', 'the stream was given up before it was open')
    }
    return stream
  }
  return {
    read: async () => {
      const stream = await Promise.race([opening, destroyed.promise])
      return stream === undefined ? null : stream.read()
    },
    write: async (bytes) => (await opened()).write(bytes),
    end: async () => (await opened()).end(),
    destroy: () => {
      destroyed.resolve(undefined)
      opening.then((stream) => stream.destroy()).catch(() => undefined)
    },
  }
}
