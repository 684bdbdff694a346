/**
 * The pod's volumes: made when they are first needed, shared by the containers that the policy lets mount them, there until
 * the guest ends. Where they lie is the guest's choice; of what the host says, the content of a file is all that gets in.
 */
import type { PolicyEngine } from '#policies/engine'
import type { MountRule } from '#policies/mount-rule'
import { type ContentVolumeRule, isContentRule, type VolumeRule } from '#policies/volume-rule'
import type { SetVolumeRequest } from '#protocol/gen/agent_pb'
import { volumeDigest } from '#protocol/volume-content'
import type { Platform } from '../platform/platform.ts'
import { AgentError, limitExceeded } from './agent-error.ts'
import { ContentVolume } from './content-volume.ts'
import { makeEmptyVolume, modeOf } from './empty-volume.ts'
import { MAX_VOLUME_UPLOADS } from './limits.ts'
import type { BindMount } from './oci-spec.ts'
import { receiveVolume } from './volume-upload.ts'

const DIR = '/run/caisson/v'

export interface PodVolumesOptions {
  readonly platform: Pick<Platform, 'files' | 'storage' | 'processes' | 'crypto'>
  readonly policy: Pick<PolicyEngine, 'admitVolume' | 'admitContent'>
  /** Directory of the scratch disk. */
  readonly scratch: string
}

interface Filled {
  readonly volume: ContentVolume
  readonly digest: string
}

export class PodVolumes {
  readonly #options: PodVolumesOptions
  readonly #empty = new Map<string, Promise<string>>()
  readonly #filled = new Map<string, Filled>()
  #count = 0
  #uploads = 0
  /** Contents take their places one after the other. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: PodVolumesOptions) {
    this.#options = options
  }

  /** @throws DeniedError ERR_POLICY_DENIED; AgentError, MalformedError ERR_VOLUME_CONTENT */
  async deliver(messages: AsyncIterable<SetVolumeRequest>): Promise<void> {
    if (this.#uploads >= MAX_VOLUME_UPLOADS) throw limitExceeded('volumes on their way', MAX_VOLUME_UPLOADS)
    this.#uploads++
    try {
      const { policy, platform } = this.#options
      const { rule, files } = await receiveVolume(messages, (volume) => policy.admitVolume(volume))
      const turn = this.#turn.then(async () => {
        const known = this.#filled.get(rule.name)
        const digest = volumeDigest(platform.crypto, files)
        policy.admitContent(rule, digest, known?.digest)
        if (known?.digest === digest) return
        const volume = known?.volume ?? (await ContentVolume.make(platform, rule, this.#place()))
        await volume.replace(files)
        this.#filled.set(rule.name, { volume, digest })
      })
      this.#turn = turn.catch(() => undefined)
      await turn
    } finally {
      this.#uploads--
    }
  }

  /**
   * What a container mounts for a rule that names a volume.
   * @param target where a part of a volume is made to appear
   * @throws AgentError ERR_VOLUME_EMPTY; UnavailableError ERR_VOLUME, ERR_VOLUME_PATH
   */
  async mount(
    rule: MountRule & { readonly volume: VolumeRule },
    target: string,
    undo: AsyncDisposableStack,
  ): Promise<BindMount> {
    const { path: destination, readOnly, volume, subPath } = rule
    const root = isContentRule(volume) ? this.#contentRoot(volume) : await this.#emptyRoot(volume)
    if (subPath === undefined) return { source: root, destination, readOnly }
    const { storage, files } = this.#options.platform
    const make = isContentRule(volume) ? undefined : { mode: modeOf(volume), gid: volume.gid ?? 0 }
    undo.defer(() => files.remove(target))
    await storage.bindInRoot({ root, path: subPath, target, make })
    undo.defer(() => storage.unmount(target))
    return { source: target, destination, readOnly }
  }

  #contentRoot({ name }: ContentVolumeRule): string {
    const filled = this.#filled.get(name)
    if (filled !== undefined) return filled.volume.root
    throw new AgentError('failedPrecondition', 'ERR_VOLUME_EMPTY', `nobody has delivered the content of volume ${name}`)
  }

  /** Made once; tried again when it failed. */
  #emptyRoot(rule: Exclude<VolumeRule, ContentVolumeRule>): Promise<string> {
    const known = this.#empty.get(rule.name)
    if (known !== undefined) return known
    const made = this.#makeEmpty(rule)
    this.#empty.set(rule.name, made)
    made.catch(() => this.#empty.delete(rule.name))
    return made
  }

  async #makeEmpty(rule: Exclude<VolumeRule, ContentVolumeRule>): Promise<string> {
    await using undo = new AsyncDisposableStack()
    const target = this.#place()
    const scratch = `${this.#options.scratch}/volumes/p${this.#count}`
    const root = await makeEmptyVolume(this.#options.platform, rule, { scratch, target }, undo)
    // It goes with the guest, whose scratch and memory it lies in.
    undo.move()
    return root
  }

  #place(): string {
    this.#count++
    return `${DIR}/${this.#count}`
  }
}
