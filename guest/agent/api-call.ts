/** Calls of the loopback endpoint, from the request line to typed values. The paths are those of Confidential Containers. */
import type { ApiRequest } from '#policies/api-rule'
import { fromBase64Url } from '#protocol/encoding'
import { MalformedError, UsageError } from '#protocol/errors'

export type ApiCall = ApiRequest & {
  /** Of `evidence`; else empty. */
  readonly runtimeData: Uint8Array
}

/** What a quote of any platform has room for. */
export const MAX_RUNTIME_DATA_BYTES = 64
const MAX_TARGET_CHARS = 2048
const NOTHING = new Uint8Array()
const RESOURCE_PATH = /^\/cdh\/resource\/([\w-][\w.-]{0,127}(?:\/[\w-][\w.-]{0,127}){2})$/

/**
 * @param target path and query of the request line, as sent
 * @throws UsageError ERR_API_PATH for a path that there is not; MalformedError ERR_API_REQUEST
 */
export function parseApiTarget(target: string): ApiCall {
  if (target.length > MAX_TARGET_CHARS) throw malformed(`has ${target.length} characters, at most ${MAX_TARGET_CHARS}`)
  const split = target.indexOf('?')
  const path = split < 0 ? target : target.slice(0, split)
  const query = new Query(split < 0 ? '' : target.slice(split + 1))
  const resource = RESOURCE_PATH.exec(path)?.[1]
  if (resource !== undefined) {
    query.only([])
    return { kind: 'resource', resource, runtimeData: NOTHING }
  }
  switch (path) {
    case '/info':
      query.only([])
      return { kind: 'info', runtimeData: NOTHING }
    case '/aa/token':
      query.only(['token_type'])
      if (query.get('token_type') !== 'kbs') throw malformed('needs token_type=kbs')
      return { kind: 'token', runtimeData: NOTHING }
    case '/aa/evidence':
      query.only(['runtime_data', 'encoding'])
      return { kind: 'evidence', runtimeData: runtimeData(query) }
    default:
      throw new UsageError('ERR_API_PATH', `there is no ${path}`, {
        hint: 'Known are /cdh/resource/REPOSITORY/TYPE/TAG, /aa/token, /aa/evidence and /info.',
      })
  }
}

/** Each parameter at most once: two readers of one request must not find different values. */
class Query {
  readonly #parameters: ReadonlyMap<string, string>

  constructor(text: string) {
    const parameters = new Map<string, string>()
    for (const [name, value] of new URLSearchParams(text)) {
      if (parameters.has(name)) throw malformed(`has ${name} twice`)
      parameters.set(name, value)
    }
    this.#parameters = parameters
  }

  only(names: readonly string[]): void {
    for (const name of this.#parameters.keys()) {
      if (!names.includes(name)) throw malformed(`has the unknown parameter ${JSON.stringify(name.slice(0, 64))}`)
    }
  }

  get(name: string): string | undefined {
    return this.#parameters.get(name)
  }
}

function runtimeData(query: Query): Uint8Array {
  const [text, encoding] = [query.get('runtime_data'), query.get('encoding')]
  if (text === undefined) throw malformed('needs runtime_data')
  if (encoding !== undefined && encoding !== 'base64') throw malformed('has an encoding other than base64')
  const bytes = encoding === undefined ? new TextEncoder().encode(text) : base64(text)
  if (bytes.byteLength > MAX_RUNTIME_DATA_BYTES) {
    throw malformed(`has runtime_data of ${bytes.byteLength} bytes, at most ${MAX_RUNTIME_DATA_BYTES}`)
  }
  return bytes
}

function base64(text: string): Uint8Array {
  try {
    return fromBase64Url(text, 'runtime_data')
  } catch (cause) {
    throw malformed('has runtime_data that is not base64url without padding', cause)
  }
}

function malformed(problem: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_API_REQUEST', `the request ${problem}`, cause === undefined ? {} : { cause })
}
