/**
 * Reads images from a registry (OCI distribution-spec 1.1). Registry and network are hostile: lengths are checked
 * before and while reading, content against its digest, redirects and token servers against rules; the headers
 * Docker-Content-Digest and Content-Type carry no trust.
 */
import type { CryptoProvider } from '#protocol/crypto-provider'
import { MalformedError, UnavailableError, UnverifiedError } from '#protocol/errors'
import {
  type BodySink,
  type HttpRequest,
  type HttpResponse,
  type HttpTransport,
  pour,
  type ResponseBody,
} from '#protocol/http-transport'
import type { Descriptor } from '#protocol/oci/descriptor'
import { computeDigest, type Digest, verifyDigest } from '#protocol/oci/digest'
import { DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST } from '#protocol/oci/media-types'
import { type ImageReference, repositoryName } from '#protocol/oci/reference'
import { DEFAULT_LIMITS } from '../limits.ts'
import { authorize, type CredentialSource } from './authorization.ts'
import { declaredLength, discard, readBounded } from './body.ts'
import { type ByteRange, checkContentRange, rangeHeader } from './content-range.ts'
import { firstAnswer } from './mirrors.ts'
import type { RegistryPlace, RegistryRoute } from './registries-conf.ts'
import { RegistryStatusError } from './status-error.ts'

export interface RegistryClientOptions {
  readonly http: HttpTransport
  readonly crypto: CryptoProvider
  /** Default: anonymous everywhere. */
  readonly credentials?: CredentialSource
  /** Whether a blob may be fetched from `host` when `registry` redirects there. Default: never to another host. */
  readonly allowRedirect?: (registry: string, host: string) => boolean
  /** Registries reached by http instead of https. Default: none. */
  readonly plainHttp?: (registry: string) => boolean
  /** Places that are tried in order for what is read: mirrors, then the registry. Default: the registry alone. */
  readonly route?: RegistryRoute
  readonly maxManifestBytes?: number
}

export interface FetchedManifest {
  readonly bytes: Uint8Array
  /** Computed from `bytes`; equal to the digest asked for, if one was. */
  readonly digest: Digest
  /** What the registry calls it: a hint for documents that do not name their own type. */
  readonly contentType: string | undefined
}

export interface OpenBlob {
  /**
   * Ends with ERR_BLOB_SIZE when more, and with ERR_BLOB_SHORT when fewer bytes arrive than were asked for. The digest is
   * the reader's to check.
   */
  readonly body: ResponseBody
  /** Where in the blob the body begins and ends: the whole blob, when the registry ignores ranges. */
  readonly range: ByteRange
}

export interface OpenBlobOptions {
  readonly what: string
  readonly signal?: AbortSignal | undefined
  /** Default: all of it. */
  readonly range?: ByteRange
  /** See `HttpRequest`. */
  readonly idleTimeoutMs?: number | undefined
}

const MANIFEST_ACCEPT = [OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_MANIFEST].join(', ')
const MAX_REDIRECTS = 4
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])

export interface RegistryCall {
  readonly method: HttpRequest['method']
  readonly repository: ImageReference
  /** After /v2/<path>/: "manifests/latest". A full URL is taken as it is. */
  readonly path: string
  readonly actions: 'pull' | 'pull,push'
  readonly headers?: Readonly<Record<string, string>>
  /** Called again when the request has to be repeated with authorization. */
  readonly body?: () => Uint8Array | AsyncIterable<Uint8Array>
  readonly signal: AbortSignal | undefined
  /** See `HttpRequest`. */
  readonly idleTimeoutMs?: number | undefined
}

export class RegistryClient {
  readonly crypto: CryptoProvider
  readonly #http: HttpTransport
  readonly #credentials: CredentialSource
  readonly #allowRedirect: (registry: string, host: string) => boolean
  readonly #plainHttp: (registry: string) => boolean
  readonly #route: RegistryRoute
  readonly #maxManifestBytes: number
  /** Registry, repository and actions → Authorization header that worked last. */
  readonly #authorizations = new Map<string, string>()
  /** Repository → name of the place that answered last. */
  readonly #served = new Map<string, string>()

  constructor(options: RegistryClientOptions) {
    this.crypto = options.crypto
    this.#http = options.http
    this.#credentials = options.credentials ?? (() => undefined)
    this.#allowRedirect = options.allowRedirect ?? (() => false)
    this.#plainHttp = options.plainHttp ?? (() => false)
    this.#route = options.route ?? ((repository) => [{ repository, plainHttp: false }])
    this.#maxManifestBytes = options.maxManifestBytes ?? DEFAULT_LIMITS.maxManifestBytes
  }

  /** By digest if the reference has one, else by tag. Undefined when the registry does not have it. */
  async findManifest(reference: ImageReference, signal?: AbortSignal): Promise<FetchedManifest | undefined> {
    const version = reference.digest ?? reference.tag
    const what = `manifest of ${repositoryName(reference)}${reference.digest === undefined ? ':' : '@'}${version}`
    if (version === undefined) throw new MalformedError('ERR_IMAGE_REFERENCE', `${what}: neither tag nor digest`)
    const response = await this.call({
      method: 'GET',
      repository: reference,
      path: `manifests/${version}`,
      actions: 'pull',
      headers: { accept: MANIFEST_ACCEPT },
      signal,
    })
    if (response.status === 404) {
      await discard(response)
      return undefined
    }
    await expectStatus(response, 200, what)
    const bytes = await readBounded(response, this.#maxManifestBytes, what)
    if (reference.digest !== undefined) verifyDigest(this.crypto, bytes, reference.digest, what)
    const digest = reference.digest ?? computeDigest(this.crypto, bytes)
    return { bytes, digest, contentType: response.headers['content-type']?.split(';', 1)[0]?.trim() }
  }

  /** As `findManifest`, but absence is `UnavailableError` ERR_IMAGE_NOT_FOUND. */
  async fetchManifest(reference: ImageReference, signal?: AbortSignal): Promise<FetchedManifest> {
    const found = await this.findManifest(reference, signal)
    if (found === undefined) {
      const version = reference.digest ?? reference.tag
      throw new UnavailableError('ERR_IMAGE_NOT_FOUND', `${repositoryName(reference)} has no ${version}`, {
        hint: 'Check the name, and that the image was pushed to this registry.',
      })
    }
    return found
  }

  /** A blob that fits in memory, verified. */
  async fetchBlob(
    repository: ImageReference,
    descriptor: Descriptor,
    { maxBytes, what, signal }: { maxBytes: number; what: string; signal?: AbortSignal | undefined },
  ): Promise<Uint8Array> {
    if (descriptor.size > maxBytes) {
      throw new MalformedError('ERR_REGISTRY_TOO_LARGE', `${what}: ${descriptor.size} bytes, at most ${maxBytes}`)
    }
    const bytes = new Uint8Array(descriptor.size)
    let at = 0
    for await (const chunk of (await this.openBlob(repository, descriptor, { what, signal })).body) {
      bytes.set(chunk, at)
      at += chunk.byteLength
    }
    verifyDigest(this.crypto, bytes, descriptor.digest, what)
    return bytes
  }

  /** Errors: those of `call`, ERR_REGISTRY_STATUS, ERR_REGISTRY_RANGE, ERR_BLOB_SIZE. */
  async openBlob(
    repository: ImageReference,
    descriptor: Descriptor,
    { what, signal, range, idleTimeoutMs }: OpenBlobOptions,
  ): Promise<OpenBlob> {
    const { size } = descriptor
    const part = range !== undefined && (range.from > 0 || range.to < size) ? range : undefined
    const response = await this.call({
      method: 'GET',
      repository,
      path: `blobs/${descriptor.digest}`,
      actions: 'pull',
      headers: { accept: '*/*', ...(part === undefined ? {} : { range: rangeHeader(part) }) },
      signal,
      idleTimeoutMs,
    })
    if (part !== undefined && response.status === 416) {
      await discard(response)
      checkContentRange(`416, ${response.headers['content-range'] ?? 'no range'}`, part, size, what)
    }
    const partial = part !== undefined && response.status === 206
    await expectStatus(response, partial ? 206 : 200, what)
    const { from, to } = partial ? part : { from: 0, to: size }
    try {
      if (partial) checkContentRange(response.headers['content-range'], part, size, what)
      const declared = declaredLength(response)
      if (declared !== undefined && declared !== to - from) throw wrongSize(what, declared, to - from)
    } catch (error) {
      await discard(response)
      throw error
    }
    return { body: exactly(response.body, to - from, what), range: { from, to } }
  }

  /**
   * One request with authorization and redirects settled; the answer may have any other status. Of several places the
   * first that answers well is taken; when none does, the error tells of each.
   */
  async call(request: RegistryCall): Promise<HttpResponse> {
    const byDigest = !/^manifests\/[^:]+$/.test(request.path)
    const places = this.#route(request.repository, byDigest)
    const asked = request.actions === 'pull' ? places : places.slice(-1)
    const [only, ...more] = asked
    if (only !== undefined && more.length === 0) return await this.#callAt(request, only)
    const name = repositoryName(request.repository)
    const served = belongsToImage(request.path) ? this.#served.get(name) : undefined
    return await firstAnswer(asked, { signal: request.signal, served }, async (place) => {
      const response = await this.#callAt(request, place)
      if (response.status < 300) this.#served.set(name, repositoryName(place.repository))
      return response
    })
  }

  async #callAt(asked: RegistryCall, { repository, plainHttp }: RegistryPlace): Promise<HttpResponse> {
    const request = { ...asked, repository }
    const key = `${repositoryName(repository)} ${request.actions}`
    const allowPlainHttp = plainHttp || this.#plainHttp(repository.registry)
    const first = await this.#follow(request, this.#authorizations.get(key), allowPlainHttp)
    if (first.status !== 401) return first
    await discard(first)
    const { registry } = repository
    const authorization = await authorize(this.#http, this.#credentials, {
      wwwAuthenticate: first.headers['www-authenticate'],
      registry,
      repository: repository.path,
      actions: request.actions,
      allowPlainHttp,
      signal: request.signal,
    })
    const second = await this.#follow(request, authorization, allowPlainHttp)
    if (second.status === 401) {
      await discard(second)
      throw new UnavailableError('ERR_REGISTRY_UNAUTHORIZED', `${repositoryName(repository)}: access denied`, {
        hint: 'Check the credentials for this repository.',
      })
    }
    this.#authorizations.set(key, authorization)
    return second
  }

  async #follow(request: RegistryCall, authorization: string | undefined, plainHttp: boolean): Promise<HttpResponse> {
    const { registry } = request.repository
    const origin = new URL(`${plainHttp ? 'http' : 'https'}://${apiHost(registry)}`)
    let url = new URL(request.path, new URL(`/v2/${request.repository.path}/`, origin))
    for (let redirects = 0; ; redirects++) {
      // Credentials are for the registry alone: whoever it redirects to, another port included, does not get them.
      const trusted = authorization !== undefined && url.origin === origin.origin
      const response = await this.#http.request({
        method: request.method,
        url: url.href,
        headers: {
          'accept-encoding': 'identity',
          ...request.headers,
          ...(trusted ? { authorization } : {}),
        },
        ...(request.body === undefined ? {} : { body: request.body() }),
        ...(request.signal === undefined ? {} : { signal: request.signal }),
        ...(request.idleTimeoutMs === undefined ? {} : { idleTimeoutMs: request.idleTimeoutMs }),
      })
      if (!REDIRECTS.has(response.status)) return response
      await discard(response)
      url = this.#redirectTarget(response, url, registry, redirects)
    }
  }

  #redirectTarget(response: HttpResponse, from: URL, registry: string, redirects: number): URL {
    const location = response.headers.location ?? ''
    const refused = (why: string): UnverifiedError =>
      new UnverifiedError('ERR_REGISTRY_REDIRECT', `${registry}: redirect refused: ${why}`, {
        hint: 'Allow the host that this registry stores its blobs on, or use a registry that serves them itself.',
      })
    if (redirects >= MAX_REDIRECTS) throw refused(`more than ${MAX_REDIRECTS} in a row`)
    if (!URL.canParse(location, from.href)) throw refused(`to ${JSON.stringify(location.slice(0, 200))}`)
    const target = new URL(location, from.href)
    if (target.protocol !== 'https:' && target.protocol !== from.protocol)
      throw refused(`from https to ${target.protocol}`)
    if (target.username !== '' || target.password !== '') throw refused('to a URL with a user name')
    if (target.host !== from.host && !this.#allowRedirect(registry, target.host)) {
      throw refused(`to another host, ${target.host}`)
    }
    return target
  }
}

/** Blobs, referrers and signature tags are asked for where the image itself came from: their absence there is absence. */
function belongsToImage(path: string): boolean {
  return !path.startsWith('manifests/') || /^manifests\/sha(?:256|512)-[0-9a-f]+(?:\.[a-z]+)?$/.test(path)
}

/** Docker Hub's API does not live under the name that its images carry. */
function apiHost(registry: string): string {
  return registry === 'docker.io' ? 'registry-1.docker.io' : registry
}

/** Throws `UnavailableError` ERR_REGISTRY_STATUS with the registry's own words, shortened and quoted. */
export async function expectStatus(response: HttpResponse, status: number, what: string): Promise<void> {
  if (response.status === status) {
    const encoding = response.headers['content-encoding']
    if (encoding === undefined || encoding === 'identity') return
    await discard(response)
    throw new MalformedError('ERR_REGISTRY_ENCODING', `${what}: content-encoding ${JSON.stringify(encoding)}`)
  }
  const text = await readBounded(response, 16 * 1024, what)
    .then((bytes) => new TextDecoder().decode(bytes).slice(0, 300))
    .catch(() => '')
  throw new RegistryStatusError(
    `${what}: the registry answers ${response.status} ${JSON.stringify(text)}`,
    response.status,
    response.headers['retry-after'],
  )
}

/** A body that has `size` bytes, or ends with an error. */
function exactly(body: ResponseBody, size: number, what: string): ResponseBody {
  let seen = 0
  const count = (chunk: Uint8Array): void => {
    seen += chunk.byteLength
    if (seen > size) throw wrongSize(what, seen, size)
  }
  const atEnd = (): void => {
    if (seen === size) return
    throw new UnavailableError('ERR_BLOB_SHORT', `${what}: the registry sends ${seen} bytes of ${size} and ends`, {
      hint: 'What the registry keeps is cut short, or something between the two ends cuts it. Push the image again.',
    })
  }
  return {
    async *[Symbol.asyncIterator]() {
      for await (const chunk of body) {
        count(chunk)
        yield chunk
      }
      atEnd()
    },
    pour: async (sink: BodySink) => {
      await pour(body, (chunk) => {
        count(chunk)
        return sink(chunk)
      })
      atEnd()
    },
  }
}

function wrongSize(what: string, actual: number, described: number): UnverifiedError {
  const more = actual > described ? 'more than' : 'less than'
  return new UnverifiedError('ERR_BLOB_SIZE', `${what}: ${actual} bytes, ${more} the ${described} described`)
}
