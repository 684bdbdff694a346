import { createHash } from 'node:crypto'
import type { HttpRequest, HttpResponse, HttpTransport } from '#protocol/http-transport'
import type { Digest } from '#protocol/oci/digest'

export function sha256(content: string | Uint8Array): Digest {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`
}

export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

export interface Answer {
  readonly status?: number
  readonly headers?: Record<string, string>
  readonly body?: string | Uint8Array
}

/** Answers from a function and keeps what was asked. */
export class FakeHttp implements HttpTransport {
  readonly requests: HttpRequest[] = []
  readonly #answer: (request: HttpRequest, number: number) => Answer

  constructor(answer: (request: HttpRequest, number: number) => Answer) {
    this.#answer = answer
  }

  request(request: HttpRequest): Promise<HttpResponse> {
    this.requests.push(request)
    const { status = 200, headers = {}, body = '' } = this.#answer(request, this.requests.length)
    const chunk = typeof body === 'string' ? bytes(body) : body
    return Promise.resolve({
      status,
      headers,
      body: (async function* () {
        // In two chunks, since networks do that.
        yield chunk.subarray(0, chunk.length >> 1)
        yield chunk.subarray(chunk.length >> 1)
      })(),
    })
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
