/**
 * The initdata of an answer, read once: its digest by the algorithm that it names, which the evidence must hold, and the
 * digest of each document in it, the workload policy among them, which the token names.
 */
import { createHash, type Hash } from 'node:crypto'
import { parse } from 'smol-toml'
import { MalformedError } from '#protocol/errors'
import type { Steps } from '../evidence/steps.ts'
import { boundToml } from './bounded-text.ts'

export interface InitdataDocument {
  /** By the algorithm that it names. */
  readonly digest: Uint8Array
  /** `sha256:` and hex of each document, by its name. */
  readonly documents: Readonly<Record<string, string>>
}

const ALGORITHMS = ['sha256', 'sha384', 'sha512'] as const
const MAX_DOCUMENTS = 32
const MAX_NAME = 128
/** Guests of one workload send the same text; one that is larger is read each time. */
const MAX_KEPT = 64
const MAX_KEPT_CHARACTERS = 64 * 1024
/** Hashed between two pauses. */
const STEP_CHARACTERS = 128 * 1024

const kept = new Map<string, InitdataDocument>()

/**
 * Undefined when the answer has none: then nothing is claimed of it. Pauses, but for the reading of TOML itself, which has a
 * bounded number of parts.
 *
 * Throws `MalformedError` ERR_INITDATA_MALFORMED.
 */
export function* readInitdata(toml: string | undefined): Steps<InitdataDocument | undefined> {
  if (toml === undefined) return undefined
  const known = kept.get(toml)
  if (known !== undefined) return known
  yield* boundToml(toml)
  const document = parseToml(toml)
  yield
  const digest = new Uint8Array((yield* hashed(algorithmOf(document), toml)).digest())
  const initdata = { digest, documents: yield* documentDigests(document) }
  keep(toml, initdata)
  return initdata
}

function keep(toml: string, initdata: InitdataDocument): void {
  if (toml.length > MAX_KEPT_CHARACTERS) return
  const [oldest] = kept.keys()
  if (kept.size >= MAX_KEPT && oldest !== undefined) kept.delete(oldest)
  kept.set(toml, initdata)
}

function parseToml(toml: string): Readonly<Record<string, unknown>> {
  try {
    return parse(toml)
  } catch (cause) {
    throw new MalformedError('ERR_INITDATA_MALFORMED', 'initdata is not valid TOML', { cause })
  }
}

function algorithmOf({ algorithm: named = '' }: Readonly<Record<string, unknown>>): (typeof ALGORITHMS)[number] {
  const algorithm = ALGORITHMS.find((known) => known === String(named).toLowerCase().replace('-', ''))
  if (algorithm !== undefined) return algorithm
  throw new MalformedError(
    'ERR_INITDATA_MALFORMED',
    `initdata names the algorithm ${JSON.stringify(named)?.slice(0, 40)}`,
    { hint: `Use ${ALGORITHMS.join(', ')}.` },
  )
}

function* documentDigests({ data }: Readonly<Record<string, unknown>>): Steps<Readonly<Record<string, string>>> {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) return {}
  const digests: [string, string][] = []
  for (const [name, document] of Object.entries(data)) {
    if (typeof document !== 'string' || name.length > MAX_NAME) continue
    if (digests.length === MAX_DOCUMENTS) break
    digests.push([name, `sha256:${(yield* hashed('sha256', document)).digest('hex')}`])
    yield
  }
  return Object.fromEntries(digests)
}

/** Of the text as UTF-8. */
function* hashed(algorithm: string, text: string): Steps<Hash> {
  const hash = createHash(algorithm)
  for (let from = 0; from < text.length; ) {
    const to = endOfCharacter(text, from + STEP_CHARACTERS)
    hash.update(text.slice(from, to))
    from = to
    yield
  }
  return hash
}

/** Not between the two halves of a character outside of the basic plane. */
function endOfCharacter(text: string, end: number): number {
  const code = text.charCodeAt(end - 1)
  return end < text.length && code >= 0xd800 && code <= 0xdbff ? end + 1 : end
}
