/**
 * Which path does what. A tenant's paths begin with `/t/NAME`, the default tenant's do not; everything is below
 * `/kbs/v0` there, except published keys. Health is the service's own.
 */
import { MalformedError, UsageError } from '#protocol/errors'
import { MAX_KBS_BODY } from '#protocol/kbs-messages'
import { MAX_REPORT_BYTES } from '#protocol/reason-report'
import { AttestationLog } from '../store/attestation-log.ts'
import { DEFAULT_TENANT } from '../store/database.ts'
import type { TenantStore } from '../store/tenant-store.ts'
import { MAX_REQUEST_BYTES } from '../x509/certificate-request.ts'
import { type CollateralAdmin, exportCollateral, importCollateral, listCollateral } from './admin/collateral.ts'
import { listIdentities, putIdentity, removeIdentity } from './admin/identities.ts'
import { checkPolicy, listPolicies, putPolicy, removePolicy } from './admin/policies.ts'
import { checkAudit, explainAttestation, listAttestations, listAudit } from './admin/records.ts'
import {
  getReference,
  listReferences,
  promoteReference,
  putReference,
  removeReference,
  retireReference,
} from './admin/references.ts'
import { listResources, putResource, removeResource, rollBackResource } from './admin/resources.ts'
import { listTenants, putTenant, removeTenant } from './admin/tenants.ts'
import type { HttpExchange, HttpReply } from './http-listener.ts'
import type { SessionReply } from './kbs-session.ts'
import { BUILT_IN } from './metrics.ts'
import { type Audience, problemReply } from './problem.ts'
import { RecordedError } from './refusal-record.ts'
import type { TenantDirectory, TenantServices } from './tenant-directory.ts'

export interface RouteOptions {
  readonly directory: TenantDirectory
  readonly tenants: TenantStore
  /** Absent: collateral is not administered here. */
  readonly collateral?: CollateralAdmin
  readonly secureCookies: boolean
  readonly now: () => Date
  /** Whether the store answers. */
  readonly ready: () => Promise<boolean>
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
      const health = await healthRoute(options, exchange)
      if (health !== undefined) return health
      const { name, segments } = splitTenant(exchange.segments)
      const services = await options.directory.find(name)
      const path = kbsPath(segments)
      if (path !== undefined) {
        const guest = guestRoute(options, services, exchange, path)
        if (guest !== undefined) return await guest
        audience = 'administrator'
        const admin = adminRoute(options, services, exchange, path)
        if (admin !== undefined) return await admin
        const [plugin] = path
        if (plugin !== undefined && !BUILT_IN.has(plugin)) {
          throw new UsageError('ERR_PLUGIN_NOT_FOUND', 'there is no plugin of this name')
        }
      }
      if (exchange.method === 'GET' && segments.join('/') === '.well-known/jwks.json') {
        return { status: 200, body: await services.tokens.publishedKeys() }
      }
      if (exchange.method === 'GET' && segments.join('/') === '.well-known/identity-ca.pem') {
        const headers = { 'content-type': 'application/pem-certificate-chain' }
        return { status: 200, headers, body: Buffer.from(await services.identityCa.published()) }
      }
      audience = 'administrator'
      throw new UsageError('ERR_NO_SUCH_PATH', `nothing answers ${exchange.method} here`)
    } catch (error) {
      return refusal(options, error, audience)
    }
  }
}

async function healthRoute(
  { ready }: RouteOptions,
  { method, segments }: HttpExchange,
): Promise<HttpReply | undefined> {
  const [name, ...more] = segments
  if (method !== 'GET' || more.length > 0) return undefined
  if (name === 'healthz') return { status: 200, body: { status: 'ok' } }
  if (name !== 'readyz') return undefined
  return (await ready()) ? { status: 200, body: { status: 'ready' } } : { status: 503, body: { status: 'no store' } }
}

function splitTenant(segments: readonly string[]): { name: string; segments: readonly string[] } {
  const [first, name, ...rest] = segments
  return first === 't' && name !== undefined ? { name, segments: rest } : { name: DEFAULT_TENANT, segments }
}

function kbsPath([prefix, version, ...path]: readonly string[]): readonly string[] | undefined {
  return prefix === 'kbs' && version === 'v0' ? path : undefined
}

function guestRoute(
  options: RouteOptions,
  services: TenantServices,
  exchange: HttpExchange,
  path: readonly string[],
): Promise<HttpReply> | undefined {
  const { kbs, release, identity, rate } = services
  const [first, ...rest] = path
  switch (`${exchange.method} ${first} ${rest.length}`) {
    case 'POST auth 0':
      rate.take()
      return exchange
        .body(MAX_AUTH_BODY)
        .then((body) => kbs.challenge(body))
        .then((reply) => withCookie(options, services, reply, Buffer.from(reply.content)))
    case 'POST attest 0':
      rate.take()
      return exchange
        .body(MAX_KBS_BODY)
        .then((body) => kbs.attest(cookieOf(exchange), body))
        .then((reply) => withCookie(options, services, reply, reply.content))
    case 'GET resource 3':
      rate.take()
      return release
        .release(rest, { cookie: cookieOf(exchange), authorization: exchange.headers.authorization })
        .then((body) => ({ status: 200, body }))
    case 'POST identity 0':
      rate.take()
      return exchange
        .body(MAX_REQUEST_BYTES)
        .then((body) =>
          identity.issue(body, { cookie: cookieOf(exchange), authorization: exchange.headers.authorization }),
        )
        .then((body) => ({ status: 200, body }))
    case 'POST reason 0':
      rate.take()
      return exchange
        .body(MAX_REPORT_BYTES)
        .then((body) =>
          services.reasons.add(body, {
            cookie: cookieOf(exchange),
            authorization: exchange.headers.authorization,
          }),
        )
        .then(() => ({ status: 200, body: {} }))
    case 'GET time 0':
      rate.take()
      return signedTime(options, services, exchange.query.get('nonce') ?? undefined)
    default:
      return undefined
  }
}

function adminRoute(
  { tenants, directory, collateral }: RouteOptions,
  { admin, tenant }: TenantServices,
  exchange: HttpExchange,
  path: readonly string[],
): Promise<HttpReply> | undefined {
  const [first, ...rest] = path
  const [id = ''] = rest
  const forget = (reply: HttpReply): HttpReply => {
    directory.forget(id)
    return reply
  }
  switch (`${exchange.method} ${first} ${rest.length}`) {
    case 'POST resource 3':
      return putResource(admin, exchange, rest)
    case 'DELETE resource 3':
      return removeResource(admin, exchange, rest)
    case 'POST resource-rollback 3':
      return rollBackResource(admin, exchange, rest)
    case 'GET resources 0':
      return listResources(admin, exchange)
    case 'POST reference-value 0':
      return putReference(admin, exchange)
    case 'GET reference-value 1':
      return getReference(admin, exchange, id)
    case 'DELETE reference-value 1':
      return removeReference(admin, exchange, id)
    case 'POST reference-value-promote 1':
      return promoteReference(admin, exchange, id)
    case 'POST reference-value-retire 1':
      return retireReference(admin, exchange, id)
    case 'GET reference-values 0':
      return listReferences(admin, exchange)
    case 'POST appraisal-policy 1':
      return putPolicy(admin, exchange, id)
    case 'POST appraisal-policy-check 0':
      return checkPolicy(admin, exchange)
    case 'DELETE appraisal-policy 1':
      return removePolicy(admin, exchange, id)
    case 'GET appraisal-policies 0':
      return listPolicies(admin, exchange)
    case 'POST identity-grant 1':
      return putIdentity(admin, exchange, id)
    case 'DELETE identity-grant 1':
      return removeIdentity(admin, exchange, id)
    case 'GET identity-grants 0':
      return listIdentities(admin, exchange)
    case 'GET attestations 0':
      return listAttestations(admin, exchange)
    case 'GET attestations 1':
      return explainAttestation(admin, exchange, id)
    case 'GET audit 0':
      return listAudit(admin, exchange)
    case 'GET audit 1':
      return checkAudit(admin, exchange, id)
    default:
      return tenant.name === DEFAULT_TENANT ? tenantRoute() : undefined
  }
  function collateralRoute(answers: CollateralAdmin): Promise<HttpReply> | undefined {
    switch (`${exchange.method} ${path.join('/')}`) {
      case 'GET collateral':
        return listCollateral(admin, answers, exchange)
      case 'GET collateral/bundle':
        return exportCollateral(admin, answers, exchange)
      case 'POST collateral':
        return importCollateral(admin, answers, exchange)
      default:
        return undefined
    }
  }
  function tenantRoute(): Promise<HttpReply> | undefined {
    switch (`${exchange.method} ${first} ${rest.length}`) {
      case 'POST tenant 1':
        return putTenant(admin, tenants, exchange, id).then(forget)
      case 'DELETE tenant 1':
        return removeTenant(admin, tenants, exchange, id).then(forget)
      case 'GET tenants 0':
        return listTenants(admin, tenants, exchange)
      default:
        return collateral === undefined ? undefined : collateralRoute(collateral)
    }
  }
}

/** The verifier's clock as a JWT, for guests whose own clock the host sets. The nonce shows that it is not an old one. */
async function signedTime(
  { now }: RouteOptions,
  { tokens, issuer }: TenantServices,
  nonce: string | undefined,
): Promise<HttpReply> {
  if (nonce !== undefined && !/^[\w-]{1,86}$/.test(nonce)) {
    throw new MalformedError('ERR_QUERY', 'the nonce is not base64url of at most 64 bytes')
  }
  const iat = Math.floor(now().getTime() / 1000)
  const claims = { iss: issuer, iat, exp: iat + TIME_LIFETIME_S, ...(nonce === undefined ? {} : { nonce }) }
  return { status: 200, body: { time: await tokens.sign(claims, 'time+jwt') } }
}

function withCookie<T>(
  { secureCookies }: RouteOptions,
  { tenant }: TenantServices,
  reply: SessionReply<T>,
  body: HttpReply['body'],
): HttpReply {
  const path = tenant.name === DEFAULT_TENANT ? '/' : `/t/${tenant.name}/`
  const attributes = `Path=${path}; HttpOnly; SameSite=Strict${secureCookies ? '; Secure' : ''}`
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
