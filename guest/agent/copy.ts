/** Moving bytes between streams with back-pressure in both directions. */
import type { ByteStream } from '#protocol/byte-stream'

interface Source {
  read(): Promise<Uint8Array | null>
}

/** Until the source ends; then the sink is half-closed. Rejects when either breaks. */
export async function copyTo(source: Source, sink: ByteStream): Promise<void> {
  for (let bytes = await source.read(); bytes !== null; bytes = await source.read()) await sink.write(bytes)
  await sink.end()
}

/** Both directions until both have ended. One that breaks ends the other; both streams are closed at the end. */
export async function joinStreams(a: ByteStream, b: ByteStream): Promise<void> {
  const destroyBoth = () => {
    a.destroy()
    b.destroy()
  }
  const direction = (from: ByteStream, to: ByteStream) => copyTo(from, to).catch(destroyBoth)
  await Promise.all([direction(a, b), direction(b, a)])
  destroyBoth()
}
