/**
 * A volume with content of the host, in guest memory, as the kubelet writes one: the files lie in a directory of their
 * own, "..data" leads to it, and every name leads through "..data", so that a reader sees one version or the other and no
 * mixture. Programs that watch volumes of Kubernetes watch exactly these names.
 */
import type { ContentVolumeRule } from '#policies/volume-rule'
import { MAX_VOLUME_BYTES, MAX_VOLUME_FILES, type VolumeFile } from '#protocol/volume-content'
import type { Platform } from '../platform/platform.ts'

const DATA = '..data'
const PAGE_BYTES = 4096
/** Two versions at the time of a change, files rounded up to pages. */
const MAX_MEMORY_BYTES = 2 * (MAX_VOLUME_BYTES + MAX_VOLUME_FILES * PAGE_BYTES)

export class ContentVolume {
  readonly #platform: Pick<Platform, 'files' | 'storage'>
  readonly #rule: ContentVolumeRule
  readonly #root: string
  #version = 0
  #names: ReadonlySet<string> = new Set()

  private constructor(platform: Pick<Platform, 'files' | 'storage'>, rule: ContentVolumeRule, root: string) {
    this.#platform = platform
    this.#rule = rule
    this.#root = root
  }

  /** @param root directory to mount it on; made here */
  static async make(
    platform: Pick<Platform, 'files' | 'storage'>,
    rule: ContentVolumeRule,
    root: string,
  ): Promise<ContentVolume> {
    await platform.files.mkdir(root, 0o755)
    await platform.storage.mount({
      source: 'tmpfs',
      target: root,
      type: 'tmpfs',
      flags: ['nosuid', 'nodev'],
      data: `mode=0755,gid=${rule.gid},size=${MAX_MEMORY_BYTES}`,
    })
    return new ContentVolume(platform, rule, root)
  }

  get root(): string {
    return this.#root
  }

  /** Checked files (`checkVolumeFiles`) take the place of those that are there. */
  async replace(files: readonly VolumeFile[]): Promise<void> {
    const { files: guest } = this.#platform
    const before = `${this.#root}/..v${this.#version}`
    const folder = `..v${this.#version + 1}`
    try {
      await this.#write(`${this.#root}/${folder}`, files)
    } catch (error) {
      await guest.remove(`${this.#root}/${folder}`)
      throw error
    }
    this.#version++
    await guest.link(`${this.#root}/${DATA}`, folder)
    const names = new Set(files.map(({ path }) => path.split('/')[0] ?? ''))
    for (const name of names) {
      if (!this.#names.has(name)) await guest.link(`${this.#root}/${name}`, `${DATA}/${name}`)
    }
    for (const name of this.#names) if (!names.has(name)) await guest.remove(`${this.#root}/${name}`)
    this.#names = names
    await guest.remove(before)
  }

  async #write(folder: string, files: readonly VolumeFile[]): Promise<void> {
    const { files: guest } = this.#platform
    const { uid, gid, mode } = this.#rule
    await guest.mkdir(folder, 0o755)
    for (const { path, content } of files) {
      const slash = path.lastIndexOf('/')
      if (slash > 0) await guest.mkdir(`${folder}/${path.slice(0, slash)}`, 0o755)
      await guest.write(`${folder}/${path}`, content, mode, { uid, gid })
    }
  }
}
