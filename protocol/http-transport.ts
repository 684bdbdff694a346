/**
 * The HTTP client that guest-side code is handed. One request, no redirects followed, no cookies kept: each caller
 * decides. `protocol/node/http.ts` implements it on undici with the trusted CAs fixed at construction.
 */
export interface HttpRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  readonly url: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array | AsyncIterable<Uint8Array>
  readonly signal?: AbortSignal
  /** No byte sent or received for this long ends the request with `ERR_HTTP_STALLED`. Milliseconds, default 30000. */
  readonly idleTimeoutMs?: number
}

/** A promise that it answers with holds the answer up until it settles; what it throws ends the answer. */
export type BodySink = (chunk: Uint8Array) => Promise<void> | undefined

/** Read one way or the other, once. */
export interface ResponseBody extends AsyncIterable<Uint8Array> {
  /** All of it into `sink`, for those who read so much that a promise per chunk counts. */
  pour?(sink: BodySink): Promise<void>
}

/** As `ResponseBody.pour`, whatever the body can. */
export async function pour(body: ResponseBody, sink: BodySink): Promise<void> {
  if (body.pour !== undefined) return await body.pour(sink)
  for await (const chunk of body) await sink(chunk)
}

export interface HttpResponse {
  readonly status: number
  /** Lower-case names; repeated headers joined with ", " (set-cookie: the first). */
  readonly headers: Readonly<Record<string, string>>
  /** Must be consumed or cancelled (`return()`), else the connection leaks. */
  readonly body: ResponseBody
}

/** Throws `UnavailableError` with ERR_HTTP_CONNECT, ERR_HTTP_TLS (untrusted or wrong certificate) or ERR_HTTP_STALLED. */
export interface HttpTransport {
  request(request: HttpRequest): Promise<HttpResponse>
  close(): Promise<void>
}
