/**
 * The guest proves to the tenant's verifier what it is, and fetches what the verifier releases for it.
 *
 * Each attestation makes its own key pair and TPM attestation key; the token and the key it binds are replaced together,
 * so a resource always comes encrypted to the key that was attested last. Handshakes never overlap.
 */
import type { JsonValue } from '#protocol/canonical-json'
import type { CryptoProvider } from '#protocol/crypto-provider'
import { MalformedError, UnavailableError, UsageError } from '#protocol/errors'
import type { HttpTransport } from '#protocol/http-transport'
import { type AdmittedImage, CURRENT_KBS_VERSION, reportDataDigest } from '#protocol/kbs-messages'
import { encodeReasonReport, type ReasonReport } from '#protocol/reason-report'
import { type BackOff, DEFAULT_BACK_OFF, isUnavailable, type Sleep, withBackOff } from './back-off.ts'
import type { EvidenceSource } from './evidence-source.ts'
import { KbsClient } from './kbs-client.ts'
import { type PodCertificate, parsePodCertificate } from './pod-identity.ts'
import { createTeeKeyPair, openSealedResource, type TeeKeyPair } from './sealed-resource.ts'
import { readToken } from './token-claims.ts'
import { VerifierRefusal } from './verifier-http.ts'

export interface AttesterOptions {
  /** Must trust the verifier's CA, as the initdata names it, and nothing else. */
  readonly http: HttpTransport
  readonly crypto: CryptoProvider
  readonly evidence: EvidenceSource
  /** Verifier URL of the initdata, with or without `/kbs/v0`. */
  readonly url: string
  readonly now: () => Date
  readonly backOff?: BackOff
  /** Default: a timer. */
  readonly sleep?: Sleep
}

export interface AttestRequest {
  /** The exact bytes that were measured. */
  readonly initdataToml: Uint8Array
  /** What was admitted and measured so far, in that order; resources may ask for it. Default none. */
  readonly images?: readonly AdmittedImage[]
  readonly signal?: AbortSignal
}

export interface AttestationResult {
  readonly token: string
  readonly expiresAt: Date
  /** The verifier's clock when it issued the token: set the guest's clock to it. */
  readonly signedTime: Date
}

interface Attested extends AttestationResult {
  readonly key: TeeKeyPair
  readonly request: AttestRequest
}

/** A token about to expire is renewed rather than sent, milliseconds. */
const RENEW_BEFORE_MS = 15_000
/** Refusals that a new handshake can cure: something took too long, or an answer got lost after it was counted. */
const CURED_BY_HANDSHAKE: ReadonlySet<string> = new Set([
  'ERR_CHALLENGE_SPENT',
  'ERR_SESSION_EXPIRED',
  'ERR_SESSION_INVALID',
])
/** Refusals of a resource that a new token can cure. */
const CURED_BY_TOKEN: ReadonlySet<string> = new Set([
  'ERR_TOKEN_MISSING',
  'ERR_TOKEN_EXPIRED',
  'ERR_TOKEN_UNKNOWN_KEY',
  'ERR_TOKEN_SIGNATURE',
  'TokenNotFound',
  'TokenVerifierError',
])
const MAX_HANDSHAKES = 3

export class Attester {
  readonly #options: AttesterOptions
  readonly #client: KbsClient
  #attested: Attested | undefined
  /** End of the handshake under way; handshakes queue behind it. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(options: AttesterOptions) {
    this.#options = options
    this.#client = new KbsClient(options.http, options.url)
  }

  /**
   * A whole handshake.
   *
   * @throws UnavailableError ERR_VERIFIER_UNAVAILABLE after the back-off's attempts, ERR_VERIFIER_TLS at once
   * @throws MalformedError ERR_VERIFIER_ANSWER
   * @throws VerifierRefusal with the verifier's code and correlation id
   */
  async attest(request: AttestRequest): Promise<AttestationResult> {
    const { token, expiresAt, signedTime } = await this.#inTurn(() => this.#attestNow(request))
    return { token, expiresAt, signedTime }
  }

  /**
   * The token of the last attestation, renewed when it is about to expire. It proves to others what this guest is; what
   * is encrypted to its key can still be opened here alone.
   *
   * @throws as `attest`; UsageError ERR_NOT_ATTESTED before the first attestation
   */
  async token(options: { signal?: AbortSignal } = {}): Promise<string> {
    return (await this.#current(options.signal)).token
  }

  /**
   * Evidence over data of a workload's choice. Waits for handshakes, which need the same device.
   *
   * @param runtimeData at most 64 bytes
   * @throws UnavailableError ERR_EVIDENCE_UNAVAILABLE where the platform has none, and what its device throws
   */
  async evidence(runtimeData: Uint8Array): Promise<JsonValue> {
    const { forWorkload } = this.#options.evidence
    if (forWorkload === undefined) {
      throw new UnavailableError('ERR_EVIDENCE_UNAVAILABLE', 'this platform gives no evidence to workloads')
    }
    return this.#inTurn(() => forWorkload(runtimeData))
  }

  /**
   * A resource, decrypted. Renews the token when it has expired, with the images of the last attestation.
   *
   * @param path `repository/type/tag`
   * @throws as `attest`; MalformedError ERR_RESOURCE_NAME; UnverifiedError ERR_RESOURCE_SEAL;
   *   UsageError ERR_NOT_ATTESTED before the first attestation
   */
  async getResource(path: string, options: { signal?: AbortSignal } = {}): Promise<Uint8Array> {
    if (!/^[\w-][\w.-]{0,127}(\/[\w-][\w.-]{0,127}){2}$/.test(path)) {
      throw new MalformedError('ERR_RESOURCE_NAME', `${JSON.stringify(path.slice(0, 256))} names no resource`, {
        hint: 'A resource is repository/type/tag.',
      })
    }
    return await this.#released((token) => this.#client.resource(path, token, options), options.signal)
  }

  /**
   * A certificate for a key of ours. Renews the token as `getResource` does.
   *
   * @param request PKCS #10, DER
   * @throws as `getResource`
   */
  async getCertificate(request: Uint8Array, options: { signal?: AbortSignal } = {}): Promise<PodCertificate> {
    const call = (token: string): Promise<Uint8Array> => this.#client.identity(request, token, options)
    return parsePodCertificate(await this.#released(call, options.signal))
  }

  /**
   * Tells the verifier why this guest refused something. One attempt: the guest keeps the reason in any case.
   *
   * @throws as `getResource`
   */
  async tell(report: ReasonReport, options: { signal?: AbortSignal } = {}): Promise<void> {
    const { token } = await this.#current(options.signal)
    await this.#client.reason(encodeReasonReport(report), token, options)
  }

  /** What the verifier releases to the token's holder, decrypted. */
  async #released(call: (token: string) => Promise<Uint8Array>, signal: AbortSignal | undefined): Promise<Uint8Array> {
    for (let handshakes = 0; ; handshakes++) {
      const attested = await this.#current(signal)
      try {
        const body = await this.#retrying(() => call(attested.token), signal)
        return await openSealedResource(body, attested.key.privateKey)
      } catch (error) {
        const curable = error instanceof VerifierRefusal && CURED_BY_TOKEN.has(error.refusal.code)
        if (!curable || handshakes >= MAX_HANDSHAKES) throw error
        // Unless somebody renewed it meanwhile, this token is of no more use.
        if (this.#attested === attested) await this.attest(withSignal(attested.request, signal))
      }
    }
  }

  /** After everything that needs the device was done, whether or not it succeeded. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work, work)
    this.#last = turn
    return turn
  }

  async #current(signal: AbortSignal | undefined): Promise<Attested> {
    const attested = this.#attested
    if (attested === undefined) {
      throw new UsageError('ERR_NOT_ATTESTED', 'a resource was asked for before the first attestation')
    }
    if (attested.expiresAt.getTime() - this.#options.now().getTime() > RENEW_BEFORE_MS) return attested
    await this.attest(withSignal(attested.request, signal))
    return this.#attested ?? attested
  }

  async #attestNow(request: AttestRequest): Promise<Attested> {
    let handshakes = 0
    const attested = await this.#retrying(
      () => this.#handshake(request),
      request.signal,
      (error) =>
        error instanceof VerifierRefusal && CURED_BY_HANDSHAKE.has(error.refusal.code) && ++handshakes < MAX_HANDSHAKES,
    )
    this.#attested = attested
    return attested
  }

  async #handshake(request: AttestRequest): Promise<Attested> {
    const { crypto, evidence } = this.#options
    const call = { signal: request.signal }
    const key = await createTeeKeyPair()
    await using prepared = await evidence.prepare()
    const { challenge, cookie } = await this.#client.auth(
      { version: CURRENT_KBS_VERSION, supportedHashAlgorithms: ['sha384'], ...prepared.request },
      call,
    )
    const bound = { nonce: challenge.nonce, teePublicKey: key.publicKey, additionalEvidence: '' }
    const reportData = reportDataDigest(crypto, { version: CURRENT_KBS_VERSION, ...bound })
    const primaryEvidence = await prepared.answer({ challenge, reportData, images: request.images ?? [] })
    const initdataToml = initdataText(request.initdataToml)
    const token = await this.#client.attest({ ...bound, initdataToml, primaryEvidence }, cookie, call)
    const { expiresAt, issuedAt } = readToken(token, bound)
    return { token, expiresAt, signedTime: issuedAt, key, request }
  }

  #retrying<T>(
    work: () => Promise<T>,
    signal: AbortSignal | undefined,
    also: (error: unknown) => boolean = () => false,
  ): Promise<T> {
    const { backOff = DEFAULT_BACK_OFF, sleep = timerSleep } = this.#options
    return withBackOff(work, {
      backOff,
      sleep,
      signal,
      isWorthRetrying: (error) => isUnavailable(error) || also(error),
    })
  }
}

function withSignal(request: AttestRequest, signal: AbortSignal | undefined): AttestRequest {
  const { initdataToml, images = [] } = request
  return signal === undefined ? { initdataToml, images } : { initdataToml, images, signal }
}

/** The message carries text: decoding must not lose a byte, a byte-order mark included. */
function initdataText(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new MalformedError('ERR_INITDATA_MALFORMED', 'the initdata is not UTF-8', { cause })
  }
}

function timerSleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer)
      reject(signal?.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort)
      resolve()
    }, ms)
    signal?.addEventListener('abort', abort, { once: true })
    if (signal?.aborted === true) abort()
  })
}
