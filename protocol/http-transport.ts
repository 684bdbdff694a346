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

export interface HttpResponse {
  readonly status: number
  /** Lower-case names; repeated headers joined with ", " (set-cookie: the first). */
  readonly headers: Readonly<Record<string, string>>
  /** Must be consumed or cancelled (`return()`), else the connection leaks. */
  readonly body: AsyncIterable<Uint8Array>
}

/** Throws `UnavailableError` with ERR_HTTP_CONNECT, ERR_HTTP_TLS (untrusted or wrong certificate) or ERR_HTTP_STALLED. */
export interface HttpTransport {
  request(request: HttpRequest): Promise<HttpResponse>
  close(): Promise<void>
}
