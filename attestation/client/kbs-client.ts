/** The guest's three calls of the KBS protocol (version 0.4.0), one HTTP exchange each. No retries, no state. */
import type { HttpTransport } from '#protocol/http-transport'
import {
  encodeKbsAttestation,
  encodeKbsRequest,
  type KbsAttestation,
  type KbsChallenge,
  type KbsRequest,
  parseKbsChallenge,
} from '#protocol/kbs-messages'
import { answerError, exchange, jsonOf, utf8Text } from './verifier-http.ts'

export interface ChallengeWithSession {
  readonly challenge: KbsChallenge
  /** Cookie pair to send back with the answer. */
  readonly cookie: string
}

export interface KbsCallOptions {
  readonly signal?: AbortSignal | undefined
}

const MAX_CHALLENGE_BYTES = 64 * 1024
const MAX_TOKEN_BYTES = 128 * 1024
/** A resource of 1 MiB, base64 in JSON. */
const MAX_SEALED_BYTES = 2 * 1024 * 1024
/** RFC 6265 section 4.1.1, for the one cookie of the protocol. */
const SESSION_COOKIE = /^\s*(kbs-session-id=[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]{1,4000})\s*(?:;|$)/

export class KbsClient {
  readonly #http: HttpTransport
  readonly #base: string

  /** @param url the verifier's URL, with or without `/kbs/v0` */
  constructor(http: HttpTransport, url: string) {
    this.#http = http
    this.#base = `${url.replace(/\/+$/, '').replace(/\/kbs\/v0$/, '')}/kbs/v0`
  }

  /** Errors: as `exchange`. */
  async auth(request: KbsRequest, options: KbsCallOptions): Promise<ChallengeWithSession> {
    const { headers, body } = await this.#post(
      '/auth',
      encodeKbsRequest(request),
      {},
      { ...options, maxBytes: MAX_CHALLENGE_BYTES },
    )
    const cookie = SESSION_COOKIE.exec(headers['set-cookie'] ?? '')?.[1]
    if (cookie === undefined) throw answerError('a challenge without a session cookie')
    try {
      return { challenge: parseKbsChallenge(utf8Text(body)), cookie }
    } catch (cause) {
      throw answerError('a challenge that cannot be read', cause)
    }
  }

  /** The token, as sent. Errors: as `exchange`. */
  async attest(attestation: KbsAttestation, cookie: string, options: KbsCallOptions): Promise<string> {
    const limits = { ...options, maxBytes: MAX_TOKEN_BYTES }
    const { body } = await this.#post('/attest', encodeKbsAttestation(attestation), { cookie }, limits)
    const reply = jsonOf(body)
    const token: unknown =
      typeof reply === 'object' && reply !== null ? Object.getOwnPropertyDescriptor(reply, 'token')?.value : undefined
    if (typeof token !== 'string' || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) throw answerError('no token')
    return token
  }

  /** The encrypted certificate, as sent. @param request PKCS #10, DER. Errors: as `exchange`. */
  async identity(request: Uint8Array, token: string, options: KbsCallOptions): Promise<Uint8Array> {
    const call = {
      method: 'POST' as const,
      url: `${this.#base}/identity`,
      headers: {
        authorization: `Bearer ${token}`,
        'content-type': 'application/pkcs10',
        accept: 'application/json',
      },
      body: request,
      ...signalOf(options),
    }
    return (await exchange(this.#http, call, MAX_SEALED_BYTES)).body
  }

  /** @param report `encodeReasonReport`. Errors: as `exchange`. */
  async reason(report: Uint8Array, token: string, options: KbsCallOptions): Promise<void> {
    const call = {
      method: 'POST' as const,
      url: `${this.#base}/reason`,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', accept: 'application/json' },
      body: report,
      ...signalOf(options),
    }
    await exchange(this.#http, call, MAX_CHALLENGE_BYTES)
  }

  /** The encrypted resource, as sent. @param path `repository/type/tag`. Errors: as `exchange`. */
  async resource(path: string, token: string, options: KbsCallOptions): Promise<Uint8Array> {
    const request = {
      method: 'GET' as const,
      url: `${this.#base}/resource/${path}`,
      headers: { authorization: `Bearer ${token}`, accept: 'application/json' },
      ...signalOf(options),
    }
    return (await exchange(this.#http, request, MAX_SEALED_BYTES)).body
  }

  async #post(
    path: string,
    body: string,
    headers: Record<string, string>,
    options: KbsCallOptions & { maxBytes: number },
  ) {
    const request = {
      method: 'POST' as const,
      url: this.#base + path,
      headers: { 'content-type': 'application/json', accept: 'application/json', ...headers },
      body: new TextEncoder().encode(body),
      ...signalOf(options),
    }
    return await exchange(this.#http, request, options.maxBytes)
  }
}

function signalOf({ signal }: KbsCallOptions): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal }
}
