/**
 * Keeps what Intel says of a platform, so that a verifier which sees the same machines and the same collateral again checks
 * the quote alone. An endorsement is found again only for the very same bytes (certification data, collateral, anchors), and
 * only until the next moment at which one of its certificates, lists or documents begins or ends to be valid: in between, a
 * fresh verification could not say anything else.
 */
import { createHash, type Hash } from 'node:crypto'
import type { AppraisalContext } from '../../evidence/context.ts'
import type { Quote } from '../parse/quote.ts'
import { EnclaveCache } from './enclave-cache.ts'
import { type Endorsement, endorse } from './endorsement.ts'

interface Entry {
  readonly endorsement: Endorsement
  /** Milliseconds; valid strictly between the two. */
  readonly after: number
  readonly before: number
}

export class EndorsementCache {
  readonly enclaves: EnclaveCache = new EnclaveCache()
  readonly #entries = new Map<string, Entry>()
  readonly #capacity: number

  /** @param capacity platforms that are kept, least recently used first to go */
  constructor(capacity = 256) {
    this.#capacity = capacity
  }

  get size(): number {
    return this.#entries.size
  }

  /** Throws as `endorse`. */
  endorse(quote: Quote, context: AppraisalContext): Endorsement {
    // Other types leave it to the quote's signatures which certificate is meant, so there is no key to keep it under.
    if (quote.certification.type !== 4 && quote.certification.type !== 5) return endorse(quote, context)
    const key = keyOf(quote, context)
    const at = context.at.getTime()
    const known = this.#entries.get(key)
    if (known !== undefined) {
      this.#entries.delete(key)
      if (at > known.after && at < known.before) {
        this.#entries.set(key, known)
        return known.endorsement
      }
    }
    const endorsement = endorse(quote, context)
    this.#keep(key, endorsement, at)
    return endorsement
  }

  #keep(key: string, endorsement: Endorsement, at: number): void {
    const { boundaries } = endorsement
    if (boundaries.includes(at)) return
    const after = Math.max(Number.NEGATIVE_INFINITY, ...boundaries.filter((time) => time < at))
    const before = Math.min(Number.POSITIVE_INFINITY, ...boundaries.filter((time) => time > at))
    this.#entries.set(key, { endorsement, after, before })
    const [oldest] = this.#entries.keys()
    if (this.#entries.size > this.#capacity && oldest !== undefined) this.#entries.delete(oldest)
  }
}

/** Everything that `endorse` reads, each part with its length, so that no two inputs have the same spelling. */
function keyOf({ body, certification }: Quote, { collateral, anchors }: AppraisalContext): string {
  const hash = createHash('sha256')
  add(hash, `${body.tee} ${certification.type}`)
  add(hash, certification.data)
  for (const list of [collateral.certificates, collateral.crls, anchors]) {
    hash.update(`${list.length};`)
    for (const { der } of list) add(hash, der)
  }
  for (const { name, text } of collateral.documents) {
    add(hash, name)
    add(hash, text)
  }
  return hash.digest('base64')
}

function add(hash: Hash, part: Uint8Array | string): void {
  hash.update(`${part.length}:`).update(part)
}
