/** Response bodies with a bound on what is kept in memory. */
import { MalformedError } from '#protocol/errors'
import type { HttpResponse } from '#protocol/http-transport'

/** Throws `MalformedError` ERR_REGISTRY_TOO_LARGE as soon as the declared or received length exceeds `maxBytes`. */
export async function readBounded(response: HttpResponse, maxBytes: number, what: string): Promise<Uint8Array> {
  const declared = declaredLength(response)
  if (declared !== undefined && declared > maxBytes) {
    await discard(response)
    throw tooLarge(what, declared, maxBytes)
  }
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body) {
    length += chunk.byteLength
    if (length > maxBytes) throw tooLarge(what, length, maxBytes)
    chunks.push(chunk)
  }
  const bytes = new Uint8Array(length)
  let at = 0
  for (const chunk of chunks) {
    bytes.set(chunk, at)
    at += chunk.byteLength
  }
  return bytes
}

/** Content-Length, or undefined when it is absent or not a number. */
export function declaredLength(response: HttpResponse): number | undefined {
  const text = response.headers['content-length']
  return text !== undefined && /^[0-9]{1,15}$/.test(text) ? Number(text) : undefined
}

/** Frees the connection of an answer that nobody reads. */
export async function discard(response: HttpResponse): Promise<void> {
  await response.body[Symbol.asyncIterator]().return?.()
}

function tooLarge(what: string, length: number, maxBytes: number): MalformedError {
  return new MalformedError('ERR_REGISTRY_TOO_LARGE', `${what}: ${length} bytes, at most ${maxBytes} are accepted`)
}
