/** `WWW-Authenticate` (RFC 9110 11.6.1): the challenges of one header value, which may name several schemes. */
import { MalformedError } from '#protocol/errors'

export interface Challenge {
  /** Lower case. */
  readonly scheme: string
  readonly params: ReadonlyMap<string, string>
}

const MAX_HEADER_LENGTH = 4096
const TOKEN = /[A-Za-z0-9!#$%&'*+.^_`|~-]+/y
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$))/y
const QUOTED = /"((?:[^"\\]|\\.)*)"/y

/** Throws `MalformedError` ERR_REGISTRY_CHALLENGE. */
export function parseChallenges(header: string): readonly Challenge[] {
  if (header.length > MAX_HEADER_LENGTH) throw malformed(`longer than ${MAX_HEADER_LENGTH} characters`)
  const challenges: { scheme: string; params: Map<string, string> }[] = []
  let at = 0
  const skip = (marks: RegExp): void => {
    marks.lastIndex = at
    at += marks.exec(header)?.[0].length ?? 0
  }
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at
    const found = pattern.exec(header)
    if (found !== null) at += found[0].length
    return found
  }
  for (skip(/[\s,]*/y); at < header.length; skip(/[\s,]*/y)) {
    const name = take(TOKEN)?.[0].toLowerCase()
    if (name === undefined) throw malformed(`unexpected character at ${at}`)
    skip(/\s*/y)
    const current = challenges.at(-1)
    if (header.charAt(at) !== '=' || current === undefined) {
      const params = new Map<string, string>()
      challenges.push({ scheme: name, params })
      // A scheme may carry one opaque word (Negotiate does) instead of parameters; nothing here needs it.
      take(TOKEN68)
      continue
    }
    at++
    skip(/\s*/y)
    const quoted = take(QUOTED)
    const value = quoted === null ? take(TOKEN)?.[0] : quoted[1]?.replaceAll(/\\(.)/g, '$1')
    if (value === undefined) throw malformed(`parameter ${name} has no value`)
    if (current.params.has(name)) throw malformed(`parameter ${name} twice`)
    current.params.set(name, value)
  }
  return challenges
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_REGISTRY_CHALLENGE', `WWW-Authenticate: ${why}`)
}
