/** Which path does what. Everything is below `/kbs/v0` except health and the published keys. */
import { MalformedError, UsageError } from '#protocol/errors'
import { MAX_KBS_BODY } from '#protocol/kbs-messages'
import type { AdminService } from './admin-service.ts'
import { AttestationLog } from './attestation-log.ts'
import type { HttpExchange, HttpReply } from './http-listener.ts'
import type { KbsService, SessionReply } from './kbs-service.ts'
import { type Audience, problemReply } from './problem.ts'
import { RecordedError } from './recorded-refusal.ts'
import type { TokenIssuer } from './token-issuer.ts'

export interface RouteOptions {
  readonly kbs: KbsService
  readonly admin: AdminService
  readonly tokens: TokenIssuer
  readonly issuer: string
  readonly secureCookies: boolean
  readonly now: () => Date
  /** Told about errors that are nobody's fault but ours. */
  readonly onInternalError: (correlationId: string, error: unknown) => void
}

/** A Request holds a certificate and a public key. */
const MAX_AUTH_BODY = 64 * 1024
const COOKIE = 'kbs-session-id'
const TIME_LIFETIME_S = 60

export function createRouter(options: RouteOptions): (exchange: HttpExchange) => Promise<HttpReply> {
  return async (exchange) => {
    let audience: Audience = 'guest'
    try {
      const [prefix, version, ...rest] = exchange.segments
      if (prefix === 'kbs' && version === 'v0') {
        const guest = guestRoute(options, exchange, rest)
        if (guest !== undefined) return await guest
        audience = 'administrator'
        const admin = adminRoute(options.admin, exchange, rest)
        if (admin !== undefined) return await admin
      }
      const open = openRoute(options, exchange)
      if (open !== undefined) return open
      audience = 'administrator'
      throw new UsageError('ERR_NO_SUCH_PATH', `nothing answers ${exchange.method} here`)
    } catch (error) {
      return refusal(options, error, audience)
    }
  }
}

function guestRoute(
  { kbs, tokens, issuer, now, secureCookies }: RouteOptions,
  exchange: HttpExchange,
  path: readonly string[],
): Promise<HttpReply> | undefined {
  const [first, ...rest] = path
  switch (`${exchange.method} ${first} ${rest.length}`) {
    case 'POST auth 0':
      return exchange
        .body(MAX_AUTH_BODY)
        .then((body) => kbs.challenge(body))
        .then((reply) => withCookie(reply, Buffer.from(reply.content), secureCookies))
    case 'POST attest 0':
      return exchange
        .body(MAX_KBS_BODY)
        .then((body) => kbs.attest(cookieOf(exchange), body))
        .then((reply) => withCookie(reply, reply.content, secureCookies))
    case 'GET resource 3':
      return kbs
        .resource(rest, { cookie: cookieOf(exchange), authorization: exchange.headers.authorization })
        .then((body) => ({ status: 200, body }))
    case 'GET time 0':
      return signedTime({ tokens, issuer, now, nonce: exchange.query.get('nonce') ?? undefined })
    default:
      return undefined
  }
}

function adminRoute(
  admin: AdminService,
  exchange: HttpExchange,
  path: readonly string[],
): Promise<HttpReply> | undefined {
  const [first, ...rest] = path
  const [id = ''] = rest
  switch (`${exchange.method} ${first} ${rest.length}`) {
    case 'POST resource 3':
      return admin.putResource(exchange, rest)
    case 'DELETE resource 3':
      return admin.removeResource(exchange, rest)
    case 'GET resources 0':
      return admin.listResources(exchange)
    case 'POST reference-value 0':
      return admin.putReference(exchange)
    case 'GET reference-value 1':
      return admin.getReference(exchange, id)
    case 'DELETE reference-value 1':
      return admin.removeReference(exchange, id)
    case 'GET reference-values 0':
      return admin.listReferences(exchange)
    case 'GET attestations 0':
      return admin.listAttestations(exchange)
    case 'GET attestations 1':
      return admin.explain(exchange, id)
    case 'GET audit 0':
      return admin.listAudit(exchange)
    case 'GET audit 1':
      return admin.checkAudit(exchange, id)
    default:
      return undefined
  }
}

function openRoute(options: RouteOptions, exchange: HttpExchange): HttpReply | undefined {
  if (exchange.method !== 'GET') return undefined
  switch (exchange.segments.join('/')) {
    case 'healthz':
      return { status: 200, body: { status: 'ok' } }
    case '.well-known/jwks.json':
      return { status: 200, body: options.tokens.publishedKeys() }
    default:
      return undefined
  }
}

/** The verifier's clock as a JWT, for guests whose own clock the host sets. The nonce shows that it is not an old one. */
async function signedTime(options: {
  tokens: TokenIssuer
  issuer: string
  now: () => Date
  nonce: string | undefined
}): Promise<HttpReply> {
  const { tokens, issuer, now, nonce } = options
  if (nonce !== undefined && !/^[\w-]{1,86}$/.test(nonce)) {
    throw new MalformedError('ERR_QUERY', 'the nonce is not base64url of at most 64 bytes')
  }
  const iat = Math.floor(now().getTime() / 1000)
  const claims = { iss: issuer, iat, exp: iat + TIME_LIFETIME_S, ...(nonce === undefined ? {} : { nonce }) }
  return { status: 200, body: { time: await tokens.sign(claims, 'time+jwt') } }
}

function withCookie<T>(reply: SessionReply<T>, body: HttpReply['body'], secure: boolean): HttpReply {
  const attributes = `Path=/; HttpOnly; SameSite=Strict${secure ? '; Secure' : ''}`
  return {
    status: 200,
    headers: {
      'set-cookie': `${COOKIE}=${reply.cookie}; Expires=${reply.expiresAt.toUTCString()}; ${attributes}`,
      'content-type': 'application/json',
    },
    ...(body === undefined ? {} : { body }),
  }
}

/** RFC 6265 section 4.2.1. Two cookies of our name are as good as none: we cannot tell which one was meant. */
function cookieOf(exchange: HttpExchange): string | undefined {
  const values = (exchange.headers.cookie ?? '')
    .split(';')
    .map((pair) => pair.trim())
    .filter((pair) => pair.startsWith(`${COOKIE}=`))
    .map((pair) => pair.slice(COOKIE.length + 1))
  return values.length === 1 ? values[0] : undefined
}

function refusal(options: RouteOptions, error: unknown, audience: Audience): HttpReply {
  const recorded = error instanceof RecordedError ? error : undefined
  const cause = recorded === undefined ? error : recorded.cause
  const id = recorded?.correlationId ?? AttestationLog.newId()
  const reply = problemReply(cause, audience, id)
  if (reply.status >= 500) options.onInternalError(id, cause)
  return reply
}
