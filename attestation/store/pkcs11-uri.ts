/**
 * PKCS #11 URIs (RFC 7512), as far as they name one AES key and how to reach it. Everything else is refused: an attribute
 * that was overlooked could have named another key.
 */
import { MalformedError } from '#protocol/errors'

export interface Pkcs11Key {
  readonly modulePath: string
  readonly token?: string
  readonly serial?: string
  readonly object?: string
  readonly id?: Uint8Array
  /** File whose first line is the PIN. */
  readonly pinFile: string
}

const SCHEME = 'pkcs11:'
const MAX_URI = 2048
/** RFC 7512 section 2.3: what may stand unescaped in a value of the path, and of the query. */
const PATH_VALUE = /^(?:[A-Za-z0-9\-._~:[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})*$/
const QUERY_VALUE = /^(?:[A-Za-z0-9\-._~:[\]@!$'()*+,=/?|]|%[0-9A-Fa-f]{2})*$/
const PATH_NAMES = ['token', 'serial', 'object', 'id', 'type']
const QUERY_NAMES = ['module-path', 'pin-source']

export function isPkcs11Uri(text: string): boolean {
  return text.startsWith(SCHEME)
}

/** @throws MalformedError ERR_PKCS11_URI */
export function parsePkcs11Uri(uri: string): Pkcs11Key {
  if (!isPkcs11Uri(uri) || uri.length > MAX_URI) throw malformed('is no URI of scheme pkcs11')
  const rest = uri.slice(SCHEME.length)
  const mark = rest.indexOf('?')
  const path = attributes(mark === -1 ? rest : rest.slice(0, mark), {
    between: ';',
    value: PATH_VALUE,
    names: PATH_NAMES,
  })
  const query = attributes(mark === -1 ? '' : rest.slice(mark + 1), {
    between: '&',
    value: QUERY_VALUE,
    names: QUERY_NAMES,
  })
  const [token, serial, object] = [textOf(path, 'token', 32), textOf(path, 'serial', 16), textOf(path, 'object', 255)]
  const id = path.get('id')
  const type = textOf(path, 'type', 16)
  if (type !== undefined && type !== 'secret-key') throw malformed('names another type than secret-key')
  if (token === undefined && serial === undefined) throw malformed('names no token')
  if (object === undefined && id === undefined) throw malformed('names neither object nor id')
  const modulePath = textOf(query, 'module-path', 1024)
  if (modulePath?.startsWith('/') !== true) throw malformed('has no absolute module-path')
  return {
    modulePath,
    pinFile: pinFile(textOf(query, 'pin-source', 1024)),
    ...(token === undefined ? {} : { token }),
    ...(serial === undefined ? {} : { serial }),
    ...(object === undefined ? {} : { object }),
    ...(id === undefined ? {} : { id }),
  }
}

function attributes(
  text: string,
  form: { readonly between: string; readonly value: RegExp; readonly names: readonly string[] },
): ReadonlyMap<string, Uint8Array> {
  const found = new Map<string, Uint8Array>()
  for (const part of text === '' ? [] : text.split(form.between)) {
    const equals = part.indexOf('=')
    const name = part.slice(0, Math.max(equals, 0))
    const value = part.slice(equals + 1)
    if (name === 'pin-value') throw malformed('holds the PIN, which others on this machine could read')
    if (!form.names.includes(name)) throw malformed(`has ${JSON.stringify(name || part)}, which is not known here`)
    if (found.has(name)) throw malformed(`has ${name} twice`)
    if (value === '' || !form.value.test(value)) throw malformed(`has a value of ${name} that is empty or not escaped`)
    found.set(name, unescaped(value))
  }
  return found
}

function unescaped(value: string): Uint8Array {
  const bytes: number[] = []
  for (let index = 0; index < value.length; index++) {
    const escaped = value[index] === '%'
    bytes.push(escaped ? Number.parseInt(value.slice(index + 1, index + 3), 16) : value.charCodeAt(index))
    if (escaped) index += 2
  }
  return Uint8Array.from(bytes)
}

/** UTF-8 without control characters, NUL above all, which would end it early in a program written in C. */
function textOf(from: ReadonlyMap<string, Uint8Array>, name: string, maxBytes: number): string | undefined {
  const bytes = from.get(name)
  if (bytes === undefined) return undefined
  if (bytes.length > maxBytes) throw malformed(`has ${bytes.length} bytes in ${name}, at most ${maxBytes}`)
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw malformed(`has a value of ${name} that is not UTF-8`)
  }
  if (/\p{Cc}/u.test(text)) throw malformed(`has a control character in ${name}`)
  return text
}

/** `file:/path`, `file:///path` (RFC 8089) or a path. */
function pinFile(source: string | undefined): string {
  const path = source?.replace(/^file:(?:\/\/(?=\/))?/, '')
  if (path?.startsWith('/') === true && !path.startsWith('//')) return path
  throw malformed('has no pin-source that is an absolute path or a file: URI')
}

function malformed(problem: string): MalformedError {
  return new MalformedError('ERR_PKCS11_URI', `the PKCS #11 URI ${problem}`, {
    hint: 'Write "pkcs11:token=NAME;object=KEY?module-path=/usr/lib/…/module.so&pin-source=file:/path/to/pin".',
  })
}
