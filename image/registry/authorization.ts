/**
 * Answers a registry's 401: Bearer tokens (distribution "token authentication") and Basic.
 *
 * The realm and the scope in a challenge are the registry's words. The scope is therefore this side's own, the realm
 * must be https (plain http only where the registry itself is reached so), and token servers may not redirect.
 */
import { toBase64 } from '#protocol/encoding'
import { UnavailableError } from '#protocol/errors'
import type { HttpRequest, HttpTransport } from '#protocol/http-transport'
import { type JsonValue, parseStrictJson } from '../json/strict-json.ts'
import { discard, readBounded } from './body.ts'
import { type Challenge, parseChallenges } from './challenge.ts'
import { RegistryStatusError } from './status-error.ts'

export interface Credentials {
  readonly username: string
  readonly password: string
  /** A refresh token: exchanged for a short one at the registry's token server (distribution "OAuth2"). */
  readonly identityToken?: string
  /** A bearer token that the registry takes as it is. */
  readonly registryToken?: string
}

/** Undefined means anonymous. @param repository "team/app" */
export type CredentialSource = (registry: string, repository: string) => Credentials | undefined

const MAX_TOKEN_RESPONSE_BYTES = 64 * 1024
/** RFC 6750 2.1 b64token, bounded so that it fits a request header. */
const BEARER_TOKEN = /^[A-Za-z0-9._~+/-]{1,16384}=*$/

export interface AuthorizationRequest {
  readonly wwwAuthenticate: string | undefined
  readonly registry: string
  readonly repository: string
  /** "pull" or "pull,push" */
  readonly actions: string
  readonly allowPlainHttp: boolean
  readonly signal: AbortSignal | undefined
}

/**
 * Value for the Authorization header. Throws ERR_REGISTRY_UNAUTHORIZED or ERR_REGISTRY_CHALLENGE, and ERR_REGISTRY_STATUS
 * for a token server that is busy or broken.
 */
export async function authorize(
  http: HttpTransport,
  credentials: CredentialSource,
  request: AuthorizationRequest,
): Promise<string> {
  const challenges = parseChallenges(request.wwwAuthenticate ?? '')
  const known = credentials(request.registry, request.repository)
  const bearer = challenges.find((challenge) => challenge.scheme === 'bearer')
  if (bearer !== undefined) {
    if (known?.registryToken !== undefined) return `Bearer ${known.registryToken}`
    return `Bearer ${await fetchToken(http, bearer, known, request)}`
  }
  if (challenges.some((challenge) => challenge.scheme === 'basic')) {
    if (known !== undefined) return basic(known)
    throw unauthorized(request, 'it asks for a user name and a password, and none are known')
  }
  throw unauthorized(request, 'it offers neither Bearer nor Basic authentication')
}

async function fetchToken(
  http: HttpTransport,
  challenge: Challenge,
  credentials: Credentials | undefined,
  request: AuthorizationRequest,
): Promise<string> {
  const url = realmUrl(challenge, request)
  const service = challenge.params.get('service')
  const scope = `repository:${request.repository}:${request.actions}`
  const response = await http.request({
    ...(credentials?.identityToken === undefined
      ? tokenRequest(url, { service, scope, credentials })
      : refreshRequest(url, { service, scope, refreshToken: credentials.identityToken })),
    ...(request.signal === undefined ? {} : { signal: request.signal }),
  })
  if (response.status !== 200) {
    await discard(response)
    if (response.status === 429 || response.status >= 500) {
      const message = `${request.registry}/${request.repository}: its token server ${url.host} answers ${response.status}`
      throw new RegistryStatusError(message, response.status, response.headers['retry-after'])
    }
    throw unauthorized(request, `its token server ${url.host} answers ${response.status}`)
  }
  const body = await readBounded(response, MAX_TOKEN_RESPONSE_BYTES, `token from ${url.host}`)
  const token = tokenOf(parseStrictJson(body, `token from ${url.host}`))
  if (token === undefined) throw unauthorized(request, `its token server ${url.host} answers without a usable token`)
  return token
}

interface TokenScope {
  readonly service: string | undefined
  readonly scope: string
}

function tokenRequest(
  realm: URL,
  { service, scope, credentials }: TokenScope & { readonly credentials: Credentials | undefined },
): HttpRequest {
  const url = new URL(realm)
  if (service !== undefined) url.searchParams.set('service', service)
  url.searchParams.set('scope', scope)
  const authorization = credentials === undefined ? {} : { authorization: basic(credentials) }
  return { method: 'GET', url: url.href, headers: { accept: 'application/json', ...authorization } }
}

/** RFC 6749 section 6, as registries take it. */
function refreshRequest(
  realm: URL,
  { service, scope, refreshToken }: TokenScope & { readonly refreshToken: string },
): HttpRequest {
  const form = new URLSearchParams({
    grant_type: 'refresh_token',
    client_id: 'caisson',
    scope,
    refresh_token: refreshToken,
  })
  if (service !== undefined) form.set('service', service)
  const body = new TextEncoder().encode(form.toString())
  const headers = {
    accept: 'application/json',
    'content-type': 'application/x-www-form-urlencoded',
    'content-length': `${body.length}`,
  }
  return { method: 'POST', url: realm.href, headers, body }
}

function realmUrl(challenge: Challenge, request: AuthorizationRequest): URL {
  const realm = challenge.params.get('realm') ?? ''
  const url = URL.canParse(realm) ? new URL(realm) : undefined
  const secure = url?.protocol === 'https:' || (request.allowPlainHttp && url?.protocol === 'http:')
  if (url === undefined || !secure || url.username !== '' || url.password !== '') {
    throw unauthorized(request, `its token realm is not an https URL: ${JSON.stringify(realm.slice(0, 200))}`)
  }
  return url
}

function tokenOf(answer: JsonValue): string | undefined {
  if (typeof answer !== 'object' || answer === null || Array.isArray(answer)) return undefined
  const { token, access_token: accessToken } = answer as { token?: JsonValue; access_token?: JsonValue }
  const text = token ?? accessToken
  return typeof text === 'string' && BEARER_TOKEN.test(text) ? text : undefined
}

function basic({ username, password }: Credentials): string {
  return `Basic ${toBase64(new TextEncoder().encode(`${username}:${password}`))}`
}

function unauthorized(request: AuthorizationRequest, why: string): UnavailableError {
  return new UnavailableError('ERR_REGISTRY_UNAUTHORIZED', `${request.registry}/${request.repository}: ${why}`, {
    hint: 'Check that the image exists and that the credentials for this repository are right.',
  })
}
