/**
 * One HTTP exchange with a verifier, and what its answers mean. Used by the guest and by the administrator's client.
 *
 * The verifier is trusted for its verdicts once TLS has authenticated it, not for sending sensible bytes: answers are
 * bounded, and one that is not what the protocol says is an error of its own.
 */
import { CaissonError, MalformedError, UnavailableError } from '#protocol/errors'
import type { HttpRequest, HttpResponse, HttpTransport } from '#protocol/http-transport'

/**
 * The verifier said no. `code` is ERR_VERIFIER_REFUSED; `refusal` holds the verifier's own code and the correlation id
 * under which its owner finds the reason. Neither is secret.
 */
export class VerifierRefusal extends CaissonError<'ERR_VERIFIER_REFUSED'> {
  readonly refusal: { readonly status: number; readonly code: string; readonly correlationId: string }

  /** @param told what the reader is told; default: where a guest's owner finds the reason */
  constructor(
    refusal: VerifierRefusal['refusal'],
    detail: string,
    told: { readonly message: string; readonly hint: string | undefined } = {
      message: `the verifier refused with ${refusal.code} (correlation id ${refusal.correlationId}): ${detail}`,
      hint: `At the verifier: caisson verifier explain ${refusal.correlationId}`,
    },
  ) {
    super('ERR_VERIFIER_REFUSED', told.message, { hint: told.hint })
    this.refusal = refusal
  }
}

/** What a verifier says of an error. */
export interface VerifierProblem {
  readonly refusal: VerifierRefusal['refusal']
  readonly detail: string
}

export interface VerifierReply {
  readonly headers: HttpResponse['headers']
  readonly body: Uint8Array
}

const MAX_PROBLEM_BYTES = 16 * 1024
/** A cloud's load balancer, or a verifier whose store is locked: worth another attempt. */
const TRANSIENT: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504])

/**
 * @param maxBytes of a successful answer's body
 * @throws UnavailableError ERR_VERIFIER_UNAVAILABLE (worth a retry), ERR_VERIFIER_TLS (not who it should be)
 * @throws MalformedError ERR_VERIFIER_ANSWER
 * @throws VerifierRefusal
 */
export async function exchange(http: HttpTransport, request: HttpRequest, maxBytes: number): Promise<VerifierReply> {
  const answer = await answerOf(http, request, maxBytes)
  if (answer.status === 200) return answer
  if (TRANSIENT.has(answer.status)) throw transient(answer.status, request)
  const problem = problemOf(answer)
  if (problem === undefined) throw unexplained(answer.status)
  throw new VerifierRefusal(problem.refusal, problem.detail)
}

/**
 * The same for an administrator, who is told what is wrong, also where the verifier itself is.
 *
 * @throws UnavailableError ERR_VERIFIER_UNAVAILABLE, ERR_VERIFIER_TLS
 * @throws MalformedError ERR_VERIFIER_ANSWER
 * @throws what `refused` makes of the verifier's own words
 */
export async function exchangeExplained(
  http: HttpTransport,
  request: HttpRequest,
  { maxBytes, refused }: { readonly maxBytes: number; readonly refused: (problem: VerifierProblem) => Error },
): Promise<VerifierReply> {
  const answer = await answerOf(http, request, maxBytes)
  if (answer.status === 200) return answer
  const problem = problemOf(answer)
  if (problem !== undefined) throw refused(problem)
  throw TRANSIENT.has(answer.status) ? transient(answer.status, request) : unexplained(answer.status)
}

interface VerifierAnswer extends VerifierReply {
  readonly status: number
}

async function answerOf(http: HttpTransport, request: HttpRequest, maxBytes: number): Promise<VerifierAnswer> {
  try {
    const response = await http.request(request)
    const { status, headers } = response
    return { status, headers, body: await readBody(response, status === 200 ? maxBytes : MAX_PROBLEM_BYTES) }
  } catch (error) {
    throw translate(error, request)
  }
}

/** @throws MalformedError ERR_VERIFIER_ANSWER */
export function utf8Text(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw answerError('an answer that is not UTF-8', cause)
  }
}

/** @throws MalformedError ERR_VERIFIER_ANSWER */
export function jsonOf(bytes: Uint8Array): unknown {
  const text = utf8Text(bytes)
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw answerError('an answer that is not JSON', cause)
  }
}

export function answerError(what: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_VERIFIER_ANSWER', `the verifier sent ${what}`, {
    hint: 'Check that the URL is that of a verifier which speaks the KBS protocol, version 0.4.0.',
    cause,
  })
}

async function readBody(response: HttpResponse, maxBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body) {
    length += chunk.byteLength
    if (length > maxBytes) throw answerError(`more than ${maxBytes} bytes`)
    chunks.push(chunk)
  }
  const whole = new Uint8Array(length)
  let offset = 0
  for (const chunk of chunks) {
    whole.set(chunk, offset)
    offset += chunk.byteLength
  }
  return whole
}

function translate(error: unknown, request: HttpRequest): unknown {
  if (!(error instanceof UnavailableError)) return error
  if (error.code === 'ERR_HTTP_TLS') {
    return new UnavailableError('ERR_VERIFIER_TLS', `${originOf(request.url)} is not the verifier: ${error.message}`, {
      hint:
        "The certificate must chain to the CA that the initdata names, carry the URL's host name, and be valid at the " +
        'time that the guest got from its host: check that clock too.',
      cause: error,
    })
  }
  return unavailable(`${originOf(request.url)} does not answer: ${error.message}`, error)
}

function unavailable(message: string, cause: unknown): UnavailableError {
  return new UnavailableError('ERR_VERIFIER_UNAVAILABLE', message, {
    hint: 'Check that the verifier runs and that the network policy lets the guest reach it.',
    cause,
  })
}

function transient(status: number, request: HttpRequest): UnavailableError {
  return unavailable(`${originOf(request.url)} answered with status ${status}`, undefined)
}

function unexplained(status: number): MalformedError {
  return answerError(`status ${status} without a problem description`)
}

/** Undefined when the answer holds none. */
function problemOf({ status, body }: VerifierAnswer): VerifierProblem | undefined {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder().decode(body))
  } catch {
    return undefined
  }
  const code = stringMember(value, 'code', /^ERR_[A-Z0-9_]{1,60}$/)
  const type = stringMember(value, 'type', /^[\x21-\x7e]{1,256}$/)
  if (code === undefined && type === undefined) return undefined
  const refusal = {
    status,
    // Other servers of this protocol send no code: the last part of their error type serves as one.
    code: code ?? type?.split('/').at(-1) ?? 'unknown',
    correlationId: stringMember(value, 'correlation_id', /^[\w-]{1,64}$/) ?? 'none',
  }
  return { refusal, detail: stringMember(value, 'detail', /^[^\p{Cc}]{1,2000}$/u) ?? 'no detail' }
}

function stringMember(value: unknown, name: string, form: RegExp): string | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const member: unknown = Object.getOwnPropertyDescriptor(value, name)?.value
  return typeof member === 'string' && form.test(member) ? member : undefined
}

function originOf(url: string): string {
  return URL.canParse(url) ? new URL(url).origin : JSON.stringify(url)
}
