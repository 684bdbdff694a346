/**
 * The pod's volumes: made when they are first needed, shared by the containers that the policy lets mount them, there until
 * the guest ends. Where they lie is the guest's choice; of what the host says, the content of a file is all that gets in.
 */
import type { AdmittedDevice } from '#policies/device-rule'
import type { PolicyEngine } from '#policies/engine'
import type { MountRule } from '#policies/mount-rule'
import { type ContentVolumeRule, isContentRule, type VolumeRule } from '#policies/volume-rule'
import { UnavailableError } from '#protocol/errors'
import type { SetVolumeRequest } from '#protocol/gen/agent_pb'
import { volumeDigest } from '#protocol/volume-content'
import type { Platform } from '../platform/platform.ts'
import { AgentError, limitExceeded } from './agent-error.ts'
import { BlockVolumes } from './block-volumes.ts'
import { ContentVolume } from './content-volume.ts'
import { makeEmptyVolume, modeOf } from './empty-volume.ts'
import { MAX_VOLUME_UPLOADS } from './limits.ts'
import type { BindMount, DeviceNode } from './oci-spec.ts'
import { receiveVolume } from './volume-upload.ts'

const DIR = '/run/caisson/v'

export interface PodVolumesOptions {
  readonly platform: Pick<Platform, 'files' | 'storage' | 'processes' | 'crypto' | 'diskCrypto'>
  readonly policy: Pick<PolicyEngine, 'admitVolume' | 'admitContent'>
  /** Directory of the scratch disk. */
  readonly scratch: string
  /** A resource of the verifier; undefined on platform `none`. */
  readonly resource: ((path: string) => Promise<Uint8Array>) | undefined
}

interface Filled {
  readonly volume: ContentVolume
  readonly digest: string
}

export class PodVolumes {
  readonly #options: PodVolumesOptions
  readonly #blocks: BlockVolumes
  /** Directories of volumes that the host does not fill. */
  readonly #made = new Map<string, Promise<string>>()
  readonly #filled = new Map<string, Filled>()
  #count = 0
  #uploads = 0
  /** Contents take their places one after the other. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: PodVolumesOptions) {
    this.#options = options
    const { platform, resource = noVerifier } = options
    this.#blocks = new BlockVolumes({ platform, released: resource })
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

  /** Settles which disks volumes have. What containers get as it is, is answered. @throws AgentError ERR_VOLUME_DISK */
  async devices(admitted: readonly AdmittedDevice[]): Promise<readonly DeviceNode[]> {
    for (const device of admitted) this.#blocks.assign(device)
    return Promise.all(
      admitted.filter(({ rule }) => rule.volume.kind === 'block').map((device) => this.#blocks.node(device)),
    )
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
    const root = isContentRule(volume) ? this.#contentRoot(volume) : await this.#rootOf(volume)
    if (subPath === undefined) return { source: root, destination, readOnly }
    const { storage, files } = this.#options.platform
    const make =
      isContentRule(volume) || volume.kind === 'block' ? undefined : { mode: modeOf(volume), gid: volume.gid ?? 0 }
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
  #rootOf(rule: Exclude<VolumeRule, ContentVolumeRule>): Promise<string> {
    const known = this.#made.get(rule.name)
    if (known !== undefined) return known
    const made = this.#make(rule)
    this.#made.set(rule.name, made)
    made.catch(() => this.#made.delete(rule.name))
    return made
  }

  async #make(rule: Exclude<VolumeRule, ContentVolumeRule>): Promise<string> {
    await using undo = new AsyncDisposableStack()
    const target = this.#place()
    if (rule.kind === 'block')
      throw new AgentError('failedPrecondition', 'ERR_VOLUME_DISK', `${rule.name} has no files`)
    if (rule.kind === 'luks') {
      await this.#blocks.open(rule, target, undo)
      undo.move()
      return target
    }
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

function noVerifier(path: string): Promise<never> {
  throw new UnavailableError('ERR_SECRET_UNAVAILABLE', `no verifier can release ${path} here`, {
    hint: 'Platform none has no attestation; run on a platform that has, or remove the encrypted volume from the policy.',
  })
}
