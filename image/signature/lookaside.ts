/**
 * Lookaside storage: signatures beside a registry, `<base>/<path>@<algorithm>=<hex>/signature-1`, -2 … until one is
 * missing (containers-registries.d(5)). Whoever serves it may leave signatures out, and can forge none.
 */
import { MalformedError, UnavailableError } from '#protocol/errors'
import type { HttpTransport } from '#protocol/http-transport'
import { type Digest, digestAlgorithm, digestHex } from '#protocol/oci/digest'
import type { ImageReference } from '#protocol/oci/reference'
import type { ImageLimits } from '../limits.ts'
import { discard, readBounded } from '../registry/body.ts'
import { parseSignatureBlob } from './blob.ts'
import type { FoundSignature } from './found.ts'
import { type LookasideConfig, lookasideFor } from './registries-d.ts'

export interface LookasideOptions {
  readonly config: LookasideConfig
  readonly http: HttpTransport
  /** Files below `file://` URLs; undefined for one that is not there. Without it such URLs are refused. */
  readonly readFile?: (path: string, maxBytes: number) => Promise<Uint8Array | undefined>
  readonly limits: ImageLimits
  readonly signal?: AbortSignal | undefined
}

/** Errors of the function: `UnavailableError` ERR_LOOKASIDE, `MalformedError` ERR_LOOKASIDE_URL, and the transport's. */
export function lookasideSignatures(
  options: LookasideOptions,
): (reference: ImageReference, digest: Digest) => Promise<readonly FoundSignature[]> {
  return async (reference, digest) => {
    const base = lookasideFor(options.config, reference)
    if (base === undefined) return []
    const folder = `${parseBase(base)}/${reference.path}@${digestAlgorithm(digest)}=${digestHex(digest)}`
    const found: FoundSignature[] = []
    for (let number = 1; number <= options.limits.maxSignatures; number++) {
      const url = `${folder}/signature-${number}`
      const bytes = await read(url, options)
      if (bytes === undefined) return found
      const signature = parseSignatureBlob(bytes, url)
      if (signature !== undefined) found.push(signature)
    }
    throw new MalformedError('ERR_LOOKASIDE', `${folder}: more than ${options.limits.maxSignatures} signatures`)
  }
}

function parseBase(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const known = url !== undefined && ['https:', 'http:', 'file:'].includes(url.protocol)
  if (known && url.search === '' && url.hash === '' && url.username === '') return url.href.replace(/\/+$/, '')
  throw new MalformedError('ERR_LOOKASIDE_URL', `${JSON.stringify(text.slice(0, 200))} is not a lookaside URL`, {
    hint: 'Use https://, or file:// with an absolute path, in registries.d.',
  })
}

async function read(url: string, options: LookasideOptions): Promise<Uint8Array | undefined> {
  const { limits, signal } = options
  if (url.startsWith('file:')) {
    if (options.readFile !== undefined) {
      return await options.readFile(decodeURIComponent(new URL(url).pathname), limits.maxSignatureBytes)
    }
    throw new UnavailableError('ERR_LOOKASIDE', `${url}: files are not read here`, {
      hint: 'Use an https:// lookaside.',
    })
  }
  const response = await options.http.request({ method: 'GET', url, ...(signal === undefined ? {} : { signal }) })
  if (response.status === 200) return await readBounded(response, limits.maxSignatureBytes, url)
  await discard(response)
  if (response.status === 404) return undefined
  throw new UnavailableError('ERR_LOOKASIDE', `${url}: the server answers ${response.status}`, {
    hint: 'Check the lookaside URL in registries.d, and that the server is up.',
  })
}
