/**
 * Builds the EROFS index of a tar with mkfs.erofs (erofs-utils 1.8), which reads untrusted bytes and is therefore itself
 * not trusted: `caisson-index` confines it, its output is sealed with dm-verity afterwards, and the kernel mounts that
 * read-only. Nothing is ever extracted, so names in the tar cannot reach anything but the index.
 */
import { MalformedError, UnavailableError } from '#protocol/errors'
import type { LayerVerity } from './engine.ts'

export interface ProgramResult {
  readonly code: number
  readonly stdout: Uint8Array
  readonly stderr: Uint8Array
}

/** `Processes.run` of the guest's platform, or its equal. */
export type RunProgram = (
  path: string,
  args: readonly string[],
  options: { timeoutMs: number },
) => Promise<ProgramResult>

export interface LayerToIndex {
  readonly tarPath: string
  /** Over the bytes as they were verified: whoever keeps tars where others can change them reads through it. */
  readonly tarVerity: LayerVerity
  readonly indexPath: string
  readonly tarBytes: number
  readonly what: string
}

export interface LayerIndexer {
  /** Creates `indexPath`. Throws `MalformedError` ERR_LAYER_INDEX or `UnavailableError` ERR_INDEXER. */
  index(layer: LayerToIndex): Promise<void>
}

export interface ErofsIndexerOptions {
  readonly run: RunProgram
  /** Path of the confining program. */
  readonly confine: string
  /** mkfs.erofs, with whatever has to stand before it. */
  readonly mkfs: readonly [string, ...string[]]
}

/**
 * --tar=i: metadata only, file contents stay in the tar. --aufs: `.wh.` files become overlayfs whiteouts and opaque
 * marks. -T0 with --mkfs-time and a cleared UUID: the same tar gives the same index, while files keep their times.
 */
const MKFS_OPTIONS = ['--quiet', '--tar=i', '--aufs', '-T0', '--mkfs-time', '-Uclear']

const BASE_SECONDS = 60
/** Headers are read one by one; contents are skipped. The slowest machine is one without hardware virtualisation. */
const BYTES_PER_SECOND = 16 * 1024 * 1024
const MEMORY_MIB = 1024
const INDEX_MIB = 2048

/** Exit codes of caisson-index. */
const EXIT_TIMEOUT = 124
const EXIT_SETUP = 125

export class ErofsIndexer implements LayerIndexer {
  readonly #options: ErofsIndexerOptions

  constructor(options: ErofsIndexerOptions) {
    this.#options = options
  }

  async index(layer: Omit<LayerToIndex, 'tarVerity'>): Promise<void> {
    const { run, confine, mkfs } = this.#options
    const seconds = BASE_SECONDS + Math.ceil(layer.tarBytes / BYTES_PER_SECOND)
    const args = [layer.tarPath, layer.indexPath, `${seconds}`, `${MEMORY_MIB}`, `${INDEX_MIB}`, '--']
    // The program keeps the time itself; the outer limit is for the case that it does not.
    const result = await run(confine, [...args, ...mkfs, ...MKFS_OPTIONS], { timeoutMs: (seconds + 10) * 1000 })
    if (result.code === 0) return
    const said = JSON.stringify(new TextDecoder().decode(result.stderr).trim().slice(-400))
    if (result.code === EXIT_SETUP || result.code === 126 || result.code === 127) {
      throw new UnavailableError('ERR_INDEXER', `${layer.what}: the indexer does not start: ${said}`, {
        hint: 'caisson-index and mkfs.erofs (erofs-utils 1.8 or later) must be installed.',
      })
    }
    if (result.code === EXIT_TIMEOUT) {
      throw new MalformedError('ERR_LAYER_INDEX', `${layer.what}: not indexed within ${seconds} seconds`)
    }
    throw new MalformedError('ERR_LAYER_INDEX', `${layer.what}: not a usable tar: exit ${result.code}: ${said}`, {
      hint: 'Build the layer again with a current tool.',
    })
  }
}
