/**
 * Brings the content of volumes to a guest, and brings it again when the kubelet has replaced it. One after the other, so
 * that one content at a time is on its way. A content that the guest refused is not offered again.
 */
import { type FSWatcher, watch } from 'node:fs'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { errorText } from '#protocol/errors'
import type { SetVolumeRequestSchema } from '#protocol/gen/agent_pb'
import type { VolumeFile } from '#protocol/volume-content'
import { GuestRefusalError } from '../pod/guest-refusal.ts'
import { CONTENT_VOLUMES, type ContentKind } from './kubelet-volume.ts'
import { readVolumeFiles, versionOf } from './volume-files.ts'

export interface FedVolume {
  readonly kind: ContentKind
  readonly name: string
  /** The kubelet's. */
  readonly directory: string
}

export interface VolumeFeedOptions {
  readonly send: (messages: Iterable<MessageInitShape<typeof SetVolumeRequestSchema>>) => Promise<void>
  readonly log: (line: string) => void
}

/** Of a message's content: room for names beside it. Bytes. */
const PART_BYTES = 128 * 1024
/** Where the host's kernel tells of no change (another file system, too many watches), looking does. */
const LOOK_MS = 60_000

export class VolumeFeed implements Disposable {
  readonly #options: VolumeFeedOptions
  /** Directory → version that was taken or denied last. */
  readonly #offered = new Map<string, string | undefined>()
  /** Directories of which the guest has some content. */
  readonly #brought = new Set<string>()
  readonly #followed = new Set<string>()
  readonly #watchers: FSWatcher[] = []
  readonly #timers: ReturnType<typeof setInterval>[] = []
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: VolumeFeedOptions) {
    this.#options = options
  }

  /** Brings the content that is there, unless the guest has it, and follows it from then on. */
  async add(volume: FedVolume): Promise<void> {
    const bringing = this.#inTurn(() => this.#bring(volume))
    // A guest that has some content keeps it when it refuses another: the container starts with what there is.
    await (this.#brought.has(volume.directory) ? bringing.catch((error) => this.#refused(volume, error)) : bringing)
    this.#follow(volume)
  }

  /** Follows a volume that an earlier daemon brought: what was missed comes now. */
  adopt(volume: FedVolume): void {
    this.#brought.add(volume.directory)
    this.#follow(volume)
    this.#look(volume)
  }

  [Symbol.dispose](): void {
    for (const watcher of this.#watchers) watcher.close()
    for (const timer of this.#timers) clearInterval(timer)
  }

  #follow(volume: FedVolume): void {
    if (this.#followed.has(volume.directory)) return
    this.#followed.add(volume.directory)
    try {
      const watcher = watch(volume.directory, { persistent: false }, () => this.#look(volume))
      watcher.on('error', () => watcher.close())
      this.#watchers.push(watcher)
    } catch (error) {
      this.#options.log(`volume ${volume.name} is looked at each minute: ${errorText(error)}`)
    }
    const timer = setInterval(() => this.#look(volume), LOOK_MS)
    timer.unref()
    this.#timers.push(timer)
  }

  #look(volume: FedVolume): void {
    void this.#inTurn(() => this.#bring(volume)).catch((error: unknown) => this.#refused(volume, error))
  }

  #refused({ name }: FedVolume, error: unknown): void {
    this.#options.log(`volume ${name} keeps its content: ${errorText(error)}`)
  }

  async #bring({ kind, name, directory }: FedVolume): Promise<void> {
    const version = await versionOf(directory)
    if (this.#brought.has(directory) && this.#offered.has(directory) && this.#offered.get(directory) === version) return
    const files = await readVolumeFiles(directory)
    try {
      await this.#options.send([{ kind: CONTENT_VOLUMES[kind], name }, ...messagesOf(files)])
    } catch (error) {
      // The policy's answer to this content is final; anything else may be better next time.
      if (error instanceof GuestRefusalError && error.kind === 'denied') this.#offered.set(directory, version)
      throw error
    }
    this.#offered.set(directory, version)
    this.#brought.add(directory)
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work)
    this.#turn = turn.catch(() => undefined)
    return turn
  }
}

/** Small files together, large ones in pieces. */
export function messagesOf(files: readonly VolumeFile[]): MessageInitShape<typeof SetVolumeRequestSchema>[] {
  const pieces = files.flatMap(({ path, content }) => {
    const count = Math.max(1, Math.ceil(content.byteLength / PART_BYTES))
    return Array.from({ length: count }, (_, index) => ({
      path: index === 0 ? path : '',
      content: content.subarray(index * PART_BYTES, (index + 1) * PART_BYTES),
    }))
  })
  const messages: { files: { path: string; content: Uint8Array }[]; bytes: number }[] = []
  for (const piece of pieces) {
    const bytes = piece.path.length + piece.content.byteLength
    const last = messages.at(-1)
    if (last !== undefined && last.bytes + bytes <= PART_BYTES && last.files.length < 128) {
      last.files.push(piece)
      last.bytes += bytes
    } else messages.push({ files: [piece], bytes })
  }
  return messages.map((message) => ({ files: message.files }))
}
