/**
 * Keeps what AMD says of endorsement keys, so that a verifier which sees the same machines again checks a report's own
 * signature alone. A chain is found again only for the very same certificates, lists and roots, and only until the next
 * moment at which one of them begins or ends to be valid: in between, a fresh verification could not say anything else.
 */
import { fingerprint } from '../../x509/fingerprint.ts'
import { amdAuthorities } from './amd-authorities.ts'
import { type VekChain, type VekChainRequest, verifyVekChain } from './vek-chain.ts'

interface Entry {
  readonly chain: VekChain
  /** Milliseconds; valid strictly between the two. */
  readonly after: number
  readonly before: number
}

const DEFAULT_CAPACITY = 1024

export class VekChainCache {
  readonly #entries = new Map<string, Entry>()
  readonly #capacity: number

  /** @param capacity keys that are kept, least recently used first to go */
  constructor(capacity: number = DEFAULT_CAPACITY) {
    this.#capacity = capacity
  }

  get size(): number {
    return this.#entries.size
  }

  verify(request: VekChainRequest): VekChain {
    const key = keyOf(request)
    const at = request.at.getTime()
    const known = this.#entries.get(key)
    if (known !== undefined) {
      this.#entries.delete(key)
      if (at > known.after && at < known.before) {
        this.#entries.set(key, known)
        return known.chain
      }
    }
    const chain = verifyVekChain(request)
    this.#keep(key, { chain, ...validityAround(at, boundariesOf(request)) })
    return chain
  }

  #keep(key: string, entry: Entry): void {
    this.#entries.set(key, entry)
    const [oldest] = this.#entries.keys()
    if (this.#entries.size > this.#capacity && oldest !== undefined) this.#entries.delete(oldest)
  }
}

/** Fingerprints have one length and no separators in them, so no two requests have the same spelling. */
function keyOf({ vek, kind, certificates, crls, anchors }: VekChainRequest): string {
  const lists = [[vek], certificates, crls, anchors].map((items) => items.map(fingerprint).join(' '))
  return [kind, ...lists].join('|')
}

/** Every moment at which anything that was looked at changes its mind. */
function boundariesOf({ vek, certificates, crls, anchors }: VekChainRequest): number[] {
  const authorities = Object.values(amdAuthorities()).flatMap(({ ark, ask, asvk }) => [ark, ask, asvk])
  return [
    ...[vek, ...certificates, ...anchors, ...authorities].flatMap(({ notBefore, notAfter }) => [notBefore, notAfter]),
    ...crls.flatMap(({ thisUpdate, nextUpdate }) => [thisUpdate, nextUpdate]),
  ].map((time) => time.getTime())
}

/** A moment that is itself a boundary gives a window that holds nothing. */
function validityAround(at: number, boundaries: readonly number[]): Pick<Entry, 'after' | 'before'> {
  return {
    after: Math.max(Number.NEGATIVE_INFINITY, ...boundaries.filter((time) => time <= at)),
    before: Math.min(Number.POSITIVE_INFINITY, ...boundaries.filter((time) => time >= at)),
  }
}
