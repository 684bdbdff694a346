/**
 * What the token says of the documents in initdata, the workload policy among them: the digest of each, by its name. The
 * initdata itself was compared with the measurement before.
 */
import { createHash } from 'node:crypto'
import { parse } from 'smol-toml'

const MAX_DOCUMENTS = 32
const MAX_NAME = 128
/** Guests of one workload send the same text; one that is larger is read each time. */
const MAX_KEPT = 64
const MAX_KEPT_CHARACTERS = 64 * 1024

const kept = new Map<string, Readonly<Record<string, string>>>()

/** @param toml initdata that parses; undefined: the guest sent none */
export function initdataClaims(toml: string | undefined): Readonly<Record<string, string>> {
  if (toml === undefined) return {}
  const known = kept.get(toml)
  if (known !== undefined) return known
  const claims = claimsOf(toml)
  if (toml.length > MAX_KEPT_CHARACTERS) return claims
  const [oldest] = kept.keys()
  if (kept.size >= MAX_KEPT && oldest !== undefined) kept.delete(oldest)
  kept.set(toml, claims)
  return claims
}

function claimsOf(toml: string): Readonly<Record<string, string>> {
  const { data } = parse(toml)
  if (typeof data !== 'object' || Array.isArray(data)) return {}
  const documents = Object.entries(data).flatMap(([name, document]) =>
    typeof document === 'string' && name.length <= MAX_NAME ? [[name, digestOf(document)] as const] : [],
  )
  return Object.fromEntries(documents.slice(0, MAX_DOCUMENTS))
}

function digestOf(document: string): string {
  return `sha256:${createHash('sha256').update(document).digest('hex')}`
}
