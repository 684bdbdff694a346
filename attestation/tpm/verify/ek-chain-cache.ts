/**
 * Keeps which endorsement keys were verified, so that a guest that comes again costs no more than its challenge. A key is
 * found again only for the very same certificate, roots and intermediates, and only while its whole path is valid: a fresh
 * verification could not say anything else. Refusals are not kept.
 */
import { createHash } from 'node:crypto'
import { type EkChainInput, type VerifiedEk, verifyEkChain } from './ek-chain.ts'

const DEFAULT_CAPACITY = 4096

export class EkChainCache {
  readonly #entries = new Map<string, VerifiedEk>()
  readonly #capacity: number

  /** @param capacity keys that are kept, least recently used first to go */
  constructor(capacity: number = DEFAULT_CAPACITY) {
    this.#capacity = capacity
  }

  get size(): number {
    return this.#entries.size
  }

  /** Throws as `verifyEkChain`. */
  verify(input: EkChainInput): VerifiedEk {
    const key = keyOf(input)
    const known = this.#entries.get(key)
    this.#entries.delete(key)
    const ek = known !== undefined && isValidAt(known, input.at) ? known : verifyEkChain(input)
    this.#entries.set(key, ek)
    const [oldest] = this.#entries.keys()
    if (this.#entries.size > this.#capacity && oldest !== undefined) this.#entries.delete(oldest)
    return ek
  }
}

function isValidAt({ validFrom, validTo }: VerifiedEk, at: Date): boolean {
  return at >= validFrom && at <= validTo
}

/** Each part with its length, so that no two inputs have the same spelling. */
function keyOf({ certificate, roots, intermediates }: EkChainInput): string {
  const hash = createHash('sha256')
  const add = (part: Uint8Array | string): void => void hash.update(`${part.length}:`).update(part)
  add(certificate)
  for (const list of [roots, intermediates]) {
    hash.update(`${list.length};`)
    for (const pem of list) add(pem)
  }
  return hash.digest('base64')
}
