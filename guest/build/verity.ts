/**
 * dm-verity hash tree (Linux Documentation/admin-guide/device-mapper/verity.rst): format 1 without a superblock, SHA-256,
 * blocks of 4096 bytes, salt before data. The tree follows the data; its top level comes first.
 */
import { createHash } from 'node:crypto'

export const VERITY_BLOCK = 4096
const DIGEST = 32
const PER_BLOCK = VERITY_BLOCK / DIGEST

export interface VerityTree {
  /** Lower-case hex. */
  readonly rootHash: string
  readonly dataBlocks: number
  /** Levels from the top down, each padded to whole blocks. */
  readonly tree: Uint8Array
}

/** Collects the digests of data as it goes by. One instance per image. */
export class VerityBuilder {
  readonly #salt: Uint8Array
  readonly #digests: Uint8Array[] = []
  #pending = new Uint8Array(0)

  constructor(salt: Uint8Array) {
    this.#salt = salt
  }

  push(chunk: Uint8Array): void {
    const joined = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk])
    const whole = joined.length - (joined.length % VERITY_BLOCK)
    for (let at = 0; at < whole; at += VERITY_BLOCK)
      this.#digests.push(this.#hash(joined.subarray(at, at + VERITY_BLOCK)))
    this.#pending = joined.slice(whole)
  }

  /** The data must be whole blocks; throws a RangeError otherwise, since padding is the image's business. */
  finish(): VerityTree {
    if (this.#pending.length > 0) throw new RangeError(`${this.#pending.length} bytes after the last whole block`)
    const levels: Uint8Array[] = []
    let digests = this.#digests
    do {
      const level = packLevel(digests)
      levels.unshift(level)
      digests = blocksOf(level).map((block) => this.#hash(block))
    } while (digests.length > 1)
    return {
      rootHash: Buffer.from(digests[0] ?? []).toString('hex'),
      dataBlocks: this.#digests.length,
      tree: Buffer.concat(levels),
    }
  }

  #hash(block: Uint8Array): Buffer {
    return createHash('sha256').update(this.#salt).update(block).digest()
  }
}

function packLevel(digests: readonly Uint8Array[]): Uint8Array {
  const level = new Uint8Array(Math.ceil(digests.length / PER_BLOCK) * VERITY_BLOCK)
  for (const [index, digest] of digests.entries()) level.set(digest, index * DIGEST)
  return level
}

function blocksOf(level: Uint8Array): readonly Uint8Array[] {
  return Array.from({ length: level.length / VERITY_BLOCK }, (_, index) =>
    level.subarray(index * VERITY_BLOCK, (index + 1) * VERITY_BLOCK),
  )
}
