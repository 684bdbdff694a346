/**
 * The streaming layer pipeline: compressed bytes in, a tar with its dm-verity tree and both digests out. Native code
 * moves and hashes the bytes on worker threads; what they must amount to is judged by the caller.
 */
import { createRequire } from 'node:module'
import { errorText, UnavailableError } from '#protocol/errors'

/** `errno` of the operating system for `file`. */
export type LayerStatus =
  | 'ok'
  | 'truncated'
  | 'corrupt'
  | 'window-too-large'
  | 'too-large'
  | 'ratio'
  | 'file'
  | 'cancelled'
  | 'no-memory'
  | 'entry'
  | 'unauthenticated'

/** By the numbers of `LayerStatus` in layer.h. */
const STATUS: readonly LayerStatus[] = [
  'ok',
  'truncated',
  'corrupt',
  'window-too-large',
  'too-large',
  'ratio',
  'file',
  'cancelled',
  'no-memory',
  'entry',
  'unauthenticated',
]

export interface NativeTree {
  readonly dataBlocks: number
  /** Bytes; the tree stands in the data's own file. */
  readonly hashOffset: number
  readonly rootHash: Uint8Array
}

export interface NativeLayerResult extends NativeTree {
  readonly compressedDigest: Uint8Array
  readonly compressedBytes: number
  /** Of the layer as it was before encryption; without encryption the same as `compressedDigest`. */
  readonly plainDigest: Uint8Array
  readonly diffId: Uint8Array
  readonly tarBytes: number
}

/** Anything but `ok` ends the layer; `errno` belongs to `file` and is 0 otherwise. */
export interface Outcome {
  readonly status: LayerStatus
  readonly errno: number
  /** With `entry`: what is wrong with which entry of the tar, its name in the tar's own words. */
  readonly entry?: { readonly problem: string; readonly name: string }
}

interface RawOutcome {
  readonly status: number
  readonly errno: number
  readonly problem?: string
  readonly entry?: Uint8Array
}

interface RawLayer {
  begin(
    path: string,
    catalogue: string,
    compression: string,
    salt: Uint8Array,
    maxTarBytes: number,
    maxRatio: number,
    key: Uint8Array,
    nonce: Uint8Array,
    hmac: Uint8Array,
  ): RawOutcome
  write(bytes: Uint8Array): Promise<RawOutcome & { tarBytes: number }>
  finish(): Promise<RawOutcome & NativeLayerResult>
  cancel(): void
}

interface Binding {
  readonly Layer: new () => RawLayer
  returnMemory(): void
  appendVerity(path: string, dataBlockSize: number, salt: Uint8Array): Promise<RawOutcome & NativeTree>
  verityRoot(path: string, dataBlockSize: number, salt: Uint8Array, bytes: number): Promise<RawOutcome & NativeTree>
}

export interface NativeLayerOptions {
  /** Of the tar; must not exist. */
  readonly path: string
  /** Of the catalogue of entries; must not exist. */
  readonly catalogue: string
  readonly compression: 'none' | 'gzip' | 'zstd'
  /** dm-verity salt, at most 256 bytes. */
  readonly salt: Uint8Array
  readonly maxTarBytes: number
  /** Tar bytes per compressed byte, judged beyond 16 MiB of tar. */
  readonly maxRatio: number
  readonly decryption?: NativeDecryption | undefined
}

/** AES-256-CTR over the whole blob, HMAC-SHA256 with the same key over the ciphertext; judged at the end. */
export interface NativeDecryption {
  /** 32 bytes */
  readonly key: Uint8Array
  /** 16 bytes: the first counter block */
  readonly nonce: Uint8Array
  /** 32 bytes */
  readonly hmac: Uint8Array
}

const MAX_SALT = 256
const EMPTY = new Uint8Array(0)

/** One call at a time: `write` and `finish` must have settled before the next. */
export class NativeLayer {
  readonly #layer: RawLayer
  readonly #begun: Outcome

  constructor(options: NativeLayerOptions) {
    checkSalt(options.salt)
    if (!(options.maxTarBytes > 0) || !(options.maxRatio >= 1)) throw new RangeError('limits must be positive')
    this.#layer = new (native().Layer)()
    const { path, catalogue, compression, salt, maxTarBytes, maxRatio, decryption } = options
    const { key = EMPTY, nonce = EMPTY, hmac = EMPTY } = decryption ?? {}
    const lengths = `${key.byteLength} ${nonce.byteLength} ${hmac.byteLength}`
    if (decryption !== undefined && lengths !== '32 16 32') throw new RangeError('key, nonce or code of a wrong length')
    this.#begun = outcome(
      this.#layer.begin(path, catalogue, compression, salt, maxTarBytes, maxRatio, key, nonce, hmac),
    )
  }

  /** `bytes` must not change until the promise settles. */
  async write(bytes: Uint8Array): Promise<Outcome & { tarBytes: number }> {
    if (this.#begun.status !== 'ok') return { ...this.#begun, tarBytes: 0 }
    const raw = await this.#layer.write(bytes)
    return { ...outcome(raw), tarBytes: raw.tarBytes }
  }

  /** The fields of the result mean nothing unless the status is `ok`. */
  async finish(): Promise<{ outcome: Outcome; result: NativeLayerResult }> {
    const raw = await this.#layer.finish()
    return { outcome: this.#begun.status === 'ok' ? outcome(raw) : this.#begun, result: raw }
  }

  /** A running call ends within 256 KiB of output, as `cancelled`; then the files are closed. Later calls end so too. */
  cancel(): void {
    this.#layer.cancel()
  }
}

/** Appends a dm-verity tree to the file: padding to 4096 bytes, then the tree with 4096-byte hash blocks. */
export async function appendVerity(
  path: string,
  dataBlockSize: 512 | 4096,
  salt: Uint8Array,
): Promise<{ outcome: Outcome; tree: NativeTree }> {
  checkSalt(salt)
  const raw = await native().appendVerity(path, dataBlockSize, salt)
  return { outcome: outcome(raw), tree: raw }
}

/** The tree that the file's first `bytes` would have: what the kernel would say of them, without the kernel. Reads only. */
export async function verityRoot(
  path: string,
  dataBlockSize: 512 | 4096,
  salt: Uint8Array,
  bytes: number,
): Promise<{ outcome: Outcome; tree: NativeTree }> {
  checkSalt(salt)
  const raw = await native().verityRoot(path, dataBlockSize, salt, bytes)
  return { outcome: outcome(raw), tree: raw }
}

/** Hands back what was freed and what only the start of this process needed. For a process that does one thing. */
export function returnMemory(): void {
  native().returnMemory()
}

function checkSalt(salt: Uint8Array): void {
  if (salt.byteLength > MAX_SALT) throw new RangeError(`salt of ${salt.byteLength} bytes, at most ${MAX_SALT}`)
}

function outcome({ status, errno, problem, entry }: RawOutcome): Outcome {
  const known = { status: STATUS[status] ?? 'corrupt', errno }
  return problem === undefined ? known : { ...known, entry: { problem, name: new TextDecoder().decode(entry) } }
}

/** Beside the bundle in the guest, in the build folder elsewhere. */
const PLACES = ['./shared.node', '../build/shared.node']

let binding: Binding | undefined

/** Loaded on first use, so that code which pulls nothing runs without a compiler. */
function native(): Binding {
  if (binding !== undefined) return binding
  const require = createRequire(import.meta.url)
  const problems: string[] = []
  for (const place of PLACES) {
    try {
      const loaded: Binding = require(place)
      binding = loaded
      return loaded
    } catch (error) {
      problems.push(errorText(error).split('\n')[0] ?? '')
    }
  }
  throw new UnavailableError('ERR_NATIVE_UNAVAILABLE', `cannot load the shared addon: ${problems.join('; ')}`, {
    hint: 'Run `node native/build.mjs --only shared`.',
  })
}
