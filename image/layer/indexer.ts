/**
 * Makes the EROFS index of an image from the catalogues of its layers. They hold names that somebody else chose, so the
 * program that reads them is not trusted: `caisson-index` confines itself before it looks at the first entry, its output is
 * sealed with dm-verity afterwards, and the kernel mounts that read-only. Nothing is ever extracted, so names can reach
 * nothing but the index.
 *
 * One index for the whole image, and an indexer of our own: what a layer means depends on those below it (hard links to
 * their files, folders they own, symbolic links on the way), which no index of a single layer can say. Measured with
 * 100,000 files it takes the processor time of mkfs.erofs, 0.3 s; that program would have to read the whole tar a second
 * time, knows neither such links nor sparse files, and had to be carried into the guest with its libraries.
 */
import { MalformedError, UnavailableError } from '#protocol/errors'
import { asArray, asObject } from '../json/fields.ts'
import { parseStrictJson } from '../json/strict-json.ts'

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

export interface ImageToIndex {
  /** Base first. */
  readonly cataloguePaths: readonly string[]
  readonly indexPath: string
  /** For messages. */
  readonly what: string
}

export interface ImageIndexer {
  /**
   * Creates `indexPath`. Answers with the positions of the layers whose tars the index needs as devices, in their order.
   * Throws `MalformedError` ERR_LAYER_INDEX or `UnavailableError` ERR_INDEXER.
   */
  index(image: ImageToIndex): Promise<readonly number[]>
}

export interface ConfinedIndexerOptions {
  readonly run: RunProgram
  /** Path of caisson-index. */
  readonly program: string
}

/** Two million entries take some seconds; the slowest machine is one without hardware virtualisation. */
const SECONDS = 180
/** Some 250 bytes per entry. */
const MEMORY_MIB = 1024
const INDEX_MIB = 2048

/** Exit codes of caisson-index. */
const EXIT_REFUSED = 1
const EXIT_TIMEOUT = 124
const EXIT_MEMORY = 134

export class ConfinedIndexer implements ImageIndexer {
  readonly #options: ConfinedIndexerOptions

  constructor(options: ConfinedIndexerOptions) {
    this.#options = options
  }

  async index({ cataloguePaths, indexPath, what }: ImageToIndex): Promise<readonly number[]> {
    const { run, program } = this.#options
    const args = [indexPath, `${SECONDS}`, `${MEMORY_MIB}`, `${INDEX_MIB}`, ...cataloguePaths]
    // The program keeps the time itself; the outer limit is for the case that it does not.
    const result = await run(program, args, { timeoutMs: (SECONDS + 10) * 1000 })
    if (result.code === 0) return parseDevices(result.stdout, cataloguePaths.length, what)
    const said = new TextDecoder().decode(result.stderr).trim().slice(-600)
    switch (result.code) {
      case EXIT_REFUSED:
        throw new MalformedError('ERR_LAYER_INDEX', `${what}: ${said}`, {
          hint: 'Build the layer again without this entry.',
        })
      case EXIT_TIMEOUT:
        throw new MalformedError('ERR_LAYER_INDEX', `${what}: not indexed within ${SECONDS} seconds`)
      case EXIT_MEMORY:
        throw new MalformedError('ERR_LAYER_INDEX', `${what}: indexing it takes more than ${MEMORY_MIB} MiB of memory`)
      default:
        throw new UnavailableError('ERR_INDEXER', `${what}: the indexer failed: exit ${result.code}: ${said}`, {
          hint: 'caisson-index must be installed, and there must be room for the index.',
        })
    }
  }
}

/** {"devices":[0,2],"inodes":12}: of a program that has read hostile bytes, so it is checked like them. */
function parseDevices(output: Uint8Array, layers: number, what: string): readonly number[] {
  const answer = asObject(parseStrictJson(output, `${what}: index`), `${what}: index`)
  let last = -1
  return asArray(answer.devices, `${what}: index.devices`, layers).map((device) => {
    if (typeof device !== 'number' || !Number.isInteger(device) || device <= last || device >= layers) {
      throw new MalformedError('ERR_LAYER_INDEX', `${what}: the indexer names devices that are no layers`)
    }
    last = device
    return device
  })
}
