/**
 * The tenant's key for reasons of refusals: a P-256 key as JWK (RFC 7517), used with ECDH-ES+A256KW (RFC 7518 section
 * 4.6) alone. The public half stands in initdata; it is read strictly, because a key that is read in two ways is two keys.
 */
import { fromBase64Url, toHex } from './encoding.ts'
import { MalformedError } from './errors.ts'

export const TENANT_KEY_ALGORITHM = 'ECDH-ES+A256KW'

export interface TenantKey {
  readonly kty: 'EC'
  readonly crv: 'P-256'
  readonly alg: typeof TENANT_KEY_ALGORITHM
  /** Coordinates, base64url of 32 bytes each; a point of the curve. */
  readonly x: string
  readonly y: string
}

export interface TenantIdentity extends TenantKey {
  /** Private scalar, base64url of 32 bytes. */
  readonly d: string
}

const MAX_JWK_CHARS = 1024
const PUBLIC_MEMBERS = ['kty', 'crv', 'alg', 'x', 'y']

/** Curve P-256: y² = x³ − 3x + b over the field of p (NIST SP 800-186 section 3.2.1.3). */
const P = 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffffn
const B = 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn

/** Public key. @throws MalformedError ERR_TENANT_KEY, also for one that holds its private half */
export function parseTenantKey(text: string): TenantKey {
  return publicPart(membersOf(text, PUBLIC_MEMBERS))
}

/** Private key. @throws MalformedError ERR_TENANT_KEY */
export function parseTenantIdentity(text: string): TenantIdentity {
  const members = membersOf(text, [...PUBLIC_MEMBERS, 'd'])
  return { ...publicPart(members), d: fieldElement(members, 'd').text }
}

function publicPart(members: ReadonlyMap<string, string>): TenantKey {
  for (const [name, value] of [
    ['kty', 'EC'],
    ['crv', 'P-256'],
    ['alg', TENANT_KEY_ALGORITHM],
  ] as const) {
    if (members.get(name) !== value) throw malformed(`${name} must be ${JSON.stringify(value)}`)
  }
  const [x, y] = [fieldElement(members, 'x'), fieldElement(members, 'y')]
  if (x.value >= P || y.value >= P || (y.value * y.value - (x.value ** 3n - 3n * x.value + B)) % P !== 0n) {
    throw malformed('x and y are no point of the curve')
  }
  return { kty: 'EC', crv: 'P-256', alg: TENANT_KEY_ALGORITHM, x: x.text, y: y.text }
}

/** Exactly these members, each a text, each once. */
function membersOf(text: string, names: readonly string[]): ReadonlyMap<string, string> {
  if (text.length > MAX_JWK_CHARS) throw malformed(`has ${text.length} characters, at most ${MAX_JWK_CHARS}`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    // Without the cause: its message quotes the text, which may be a private key.
    throw malformed('is not JSON')
  }
  if (typeof value !== 'object' || value === null) throw malformed('is not a JSON object')
  const entries = Object.entries(value)
  const unknown = entries.find(([name]) => !names.includes(name))?.[0]
  if (unknown === 'd') throw malformed('holds the private key: give the public one')
  if (unknown !== undefined) throw malformed(`has the unknown member ${JSON.stringify(unknown.slice(0, 40))}`)
  const members = new Map<string, string>()
  for (const [name, member] of entries) {
    if (typeof member !== 'string') throw malformed(`${name} must be a string`)
    members.set(name, member)
  }
  // No value holds white space, so what is left besides it is the only spelling: no member twice, no escapes.
  if (text.replaceAll(/[ \t\r\n]/g, '') !== JSON.stringify(value)) throw malformed('has a member twice or is escaped')
  return members
}

function fieldElement(members: ReadonlyMap<string, string>, name: string): { text: string; value: bigint } {
  const text = members.get(name)
  if (text === undefined) throw malformed(`${name} is missing`)
  let bytes: Uint8Array
  try {
    bytes = fromBase64Url(text, name)
  } catch {
    throw malformed(`${name} is not base64url`)
  }
  if (bytes.length !== 32) throw malformed(`${name} has ${bytes.length} bytes, P-256 needs 32`)
  return { text, value: BigInt(`0x${toHex(bytes)}`) }
}

function malformed(problem: string): MalformedError {
  return new MalformedError('ERR_TENANT_KEY', `tenant key ${problem}`, {
    hint: 'Make one with `caisson initdata keygen`: PREFIX.pub.jwk is public, PREFIX.jwk private.',
  })
}
