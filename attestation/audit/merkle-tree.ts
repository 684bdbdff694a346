/**
 * Append-only Merkle trees (RFC 9162 section 2.1): hashes, roots, and the two proofs that make a log checkable. Nothing
 * here knows what a leaf means or where hashes are kept.
 */
import { createHash } from 'node:crypto'
import { MalformedError } from '#protocol/errors'

/** SHA-256, 32 bytes. */
export type TreeHash = Uint8Array

/** Hash of a complete subtree: 2^level leaves, the `index`-th of its level. */
export type SubtreeHash = (level: number, index: number) => TreeHash | Promise<TreeHash>

const HASH_BYTES = 32
/** Sizes are JavaScript integers: a log of 2^53 entries does not end before its disk. */
const MAX_PROOF = 106

/** Hash of a log without entries (section 2.1.1). */
export const EMPTY_ROOT: TreeHash = new Uint8Array(createHash('sha256').digest())

/** Section 2.1.1: the prefix keeps a leaf from passing for a node. */
export function leafHash(entry: Uint8Array): TreeHash {
  return new Uint8Array(createHash('sha256').update(Uint8Array.of(0)).update(entry).digest())
}

export function nodeHash(left: TreeHash, right: TreeHash): TreeHash {
  return new Uint8Array(createHash('sha256').update(Uint8Array.of(1)).update(left).update(right).digest())
}

/** Root of the first `size` leaves. */
export async function treeRoot(subtree: SubtreeHash, size: number): Promise<TreeHash> {
  return size === 0 ? EMPTY_ROOT : await rangeHash(subtree, 0, size)
}

/** Root of a list of leaf hashes, in memory proportional to the logarithm of its length. */
export class RootBuilder {
  readonly #stack: { readonly level: number; readonly hash: TreeHash }[] = []

  add(leaf: TreeHash): void {
    let level = 0
    let hash = leaf
    for (let top = this.#stack.at(-1); top?.level === level; top = this.#stack.at(-1)) {
      this.#stack.pop()
      hash = nodeHash(top.hash, hash)
      level++
    }
    this.#stack.push({ level, hash })
  }

  root(): TreeHash {
    const [last, ...rest] = this.#stack.toReversed()
    return last === undefined ? EMPTY_ROOT : rest.reduce((right, left) => nodeHash(left.hash, right), last.hash)
  }
}

/** Section 2.1.3.1: the hashes that lead from leaf `index` to the root of `size` leaves, lowest first. */
export async function inclusionProof(subtree: SubtreeHash, index: number, size: number): Promise<TreeHash[]> {
  if (!inRange(index, 0, size - 1)) throw malformed(`leaf ${index} is not among ${size}`)
  const proof: TreeHash[] = []
  let [start, end] = [0, size]
  while (end - start > 1) {
    const middle = start + largestPowerBelow(end - start)
    const inLeft = index < middle
    proof.push(await (inLeft ? rangeHash(subtree, middle, end) : rangeHash(subtree, start, middle)))
    ;[start, end] = inLeft ? [start, middle] : [middle, end]
  }
  return proof.reverse()
}

/** Section 2.1.4.1: shows that the first `older` leaves of a log of `newer` are those it had when it had `older`. */
export async function consistencyProof(subtree: SubtreeHash, older: number, newer: number): Promise<TreeHash[]> {
  if (!inRange(older, 0, newer)) throw malformed(`a log of ${newer} entries never had ${older}`)
  if (older === 0 || older === newer) return []
  const proof: TreeHash[] = []
  let [start, end] = [0, newer]
  let whole = true
  while (older !== end) {
    const middle = start + largestPowerBelow(end - start)
    if (older <= middle) {
      proof.push(await rangeHash(subtree, middle, end))
      end = middle
    } else {
      proof.push(await rangeHash(subtree, start, middle))
      start = middle
      whole = false
    }
  }
  if (!whole) proof.push(await rangeHash(subtree, start, end))
  return proof.reverse()
}

export interface InclusionClaim {
  readonly leaf: TreeHash
  readonly index: number
  readonly size: number
  readonly root: TreeHash
  readonly proof: readonly TreeHash[]
}

/** Section 2.1.3.2. False for whatever does not lead to the root, hashes of the wrong length included. */
export function verifyInclusion({ leaf, index, size, root, proof }: InclusionClaim): boolean {
  if (!inRange(size, 1, Number.MAX_SAFE_INTEGER) || !inRange(index, 0, size - 1) || !wellFormed(proof)) return false
  let [node, last] = [index, size - 1]
  let hash = leaf
  for (const sibling of proof) {
    if (last === 0) return false
    if (node % 2 === 1 || node === last) {
      hash = nodeHash(sibling, hash)
      while (node % 2 === 0 && node !== 0) [node, last] = [half(node), half(last)]
    } else {
      hash = nodeHash(hash, sibling)
    }
    ;[node, last] = [half(node), half(last)]
  }
  return last === 0 && sameHash(hash, root)
}

export interface ConsistencyClaim {
  readonly older: { readonly size: number; readonly root: TreeHash }
  readonly newer: { readonly size: number; readonly root: TreeHash }
  readonly proof: readonly TreeHash[]
}

/** Section 2.1.4.2. */
export function verifyConsistency({ older, newer, proof }: ConsistencyClaim): boolean {
  if (!inRange(newer.size, 0, Number.MAX_SAFE_INTEGER) || !inRange(older.size, 0, newer.size)) return false
  if (!wellFormed(proof)) return false
  if (older.size === newer.size) return proof.length === 0 && sameHash(older.root, newer.root)
  if (older.size === 0) return proof.length === 0 && sameHash(older.root, EMPTY_ROOT)
  const complete = Number.isInteger(Math.log2(older.size))
  const [first, ...rest] = complete ? [older.root, ...proof] : proof
  if (first === undefined) return false
  let [node, last] = [older.size - 1, newer.size - 1]
  while (node % 2 === 1) [node, last] = [half(node), half(last)]
  let [olderHash, newerHash] = [first, first]
  for (const sibling of rest) {
    if (last === 0) return false
    if (node % 2 === 1 || node === last) {
      olderHash = nodeHash(sibling, olderHash)
      newerHash = nodeHash(sibling, newerHash)
      while (node % 2 === 0 && node !== 0) [node, last] = [half(node), half(last)]
    } else {
      newerHash = nodeHash(newerHash, sibling)
    }
    ;[node, last] = [half(node), half(last)]
  }
  return last === 0 && sameHash(olderHash, older.root) && sameHash(newerHash, newer.root)
}

/** Hash of leaves `start`..`end` as the tree has it; `start` is a multiple of the power of two that spans the range. */
async function rangeHash(subtree: SubtreeHash, start: number, end: number): Promise<TreeHash> {
  const length = end - start
  const split = largestPowerBelow(length)
  if (length === 1) return await subtree(0, start)
  if (length === split * 2) return await subtree(Math.log2(length), start / length)
  return nodeHash(await rangeHash(subtree, start, start + split), await rangeHash(subtree, start + split, end))
}

/** The largest power of two below `length` (section 2.1.1 names it k); 0.5 for 1. */
function largestPowerBelow(length: number): number {
  let power = 0.5
  while (power * 2 < length) power *= 2
  return power
}

function half(value: number): number {
  return Math.floor(value / 2)
}

function inRange(value: number, min: number, max: number): boolean {
  return Number.isSafeInteger(value) && value >= min && value <= max
}

function wellFormed(proof: readonly TreeHash[]): boolean {
  return proof.length <= MAX_PROOF && proof.every((hash) => hash.length === HASH_BYTES)
}

/** Roots are public: nothing is learnt from the time that this takes. */
function sameHash(a: TreeHash, b: TreeHash): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index])
}

function malformed(message: string): MalformedError {
  return new MalformedError('ERR_AUDIT_RANGE', message, {
    hint: 'Ask for entries that the log has; `caisson verifier audit verify` prints how many.',
  })
}
