/**
 * Disks of the host that belong to volumes: which disk a volume has is settled when it is first given, and no disk belongs
 * to two. The host's word for a disk chooses among its own disks only, and never the guest's.
 */
import type { AdmittedDevice } from '#policies/device-rule'
import type { LuksVolumeRule } from '#policies/volume-rule'
import { errorText, UnavailableError } from '#protocol/errors'
import type { Platform } from '../platform/platform.ts'
import { AgentError } from './agent-error.ts'
import { modeOf } from './empty-volume.ts'
import type { DeviceNode } from './oci-spec.ts'

const MKFS = '/usr/sbin/mke2fs'
const MAX_NUMBER_BYTES = 32
/** The journal of a large disk is written whole. */
const MKFS_MS = 10 * 60_000

export interface BlockVolumesOptions {
  readonly platform: Pick<Platform, 'files' | 'storage' | 'processes' | 'diskCrypto'>
  /** A resource of the verifier. */
  readonly released: (path: string) => Promise<Uint8Array>
}

export class BlockVolumes {
  readonly #options: BlockVolumesOptions
  /** Volume → the host's word for its disk. */
  readonly #disks = new Map<string, string>()

  constructor(options: BlockVolumesOptions) {
    this.#options = options
  }

  /** @throws AgentError ERR_VOLUME_DISK when the volume has another disk, or the disk another volume */
  assign({ rule, disk }: AdmittedDevice): void {
    const { name } = rule.volume
    const known = this.#disks.get(name)
    const taken = [...this.#disks].some(([other, its]) => its === disk && other !== name)
    if (taken || (known !== undefined && known !== disk)) {
      throw new AgentError('failedPrecondition', 'ERR_VOLUME_DISK', `disk ${disk} is not that of volume ${name}`)
    }
    this.#disks.set(name, disk)
  }

  /** The disk as it is, for a container. */
  async node({ rule }: AdmittedDevice): Promise<DeviceNode> {
    const device = await this.#device(rule.volume.name)
    const text = await this.#options.platform.files.read(
      `/sys/class/block/${device.slice('/dev/'.length)}/dev`,
      MAX_NUMBER_BYTES,
    )
    const [major = Number.NaN, minor = Number.NaN] = new TextDecoder().decode(text).trim().split(':').map(Number)
    return { path: rule.path, major, minor, readOnly: rule.readOnly, uid: rule.uid, gid: rule.gid }
  }

  /** Opens the volume and mounts its file system on `target`. */
  async open(rule: LuksVolumeRule, target: string, undo: AsyncDisposableStack): Promise<void> {
    const { platform, released } = this.#options
    const { files, storage } = platform
    const device = await this.#device(rule.name)
    const { openLuksVolume } = await import('../luks/volume.ts')
    const passphrase = await released(rule.key)
    const name = `volume-${rule.name}`
    const { path, finish } = await openLuksVolume(platform, {
      device,
      name,
      passphrase,
      formatEmpty: rule.formatEmpty,
    }).finally(() => passphrase.fill(0))
    undo.defer(() => storage.closeMapped(name))
    if (finish !== undefined) await this.#makeFileSystem(path)
    undo.defer(() => files.remove(target))
    await files.mkdir(target, 0o711)
    await this.#mount(rule, path, target)
    undo.defer(() => storage.unmount(target))
    if (finish === undefined) return
    // As an empty volume: programs that want an empty directory would find lost+found there.
    await files.remove(`${target}/lost+found`)
    await files.own(target, modeOf(rule), { uid: 0, gid: rule.gid ?? 0 })
    await files.sync(target)
    await finish()
  }

  async #mount({ name }: LuksVolumeRule, source: string, target: string): Promise<void> {
    const flags = ['nodev', 'nosuid', 'noatime'] as const
    try {
      await this.#options.platform.storage.mount({ source, target, type: 'ext4', flags, data: '' })
    } catch (cause) {
      throw new UnavailableError('ERR_VOLUME', `the encrypted volume ${name} cannot be mounted: ${errorText(cause)}`, {
        hint: 'Its key is right; its ext4 file system is missing or damaged. Open the disk with cryptsetup, then make one (mkfs.ext4) or repair it (fsck.ext4).',
        cause,
      })
    }
  }

  async #makeFileSystem(path: string): Promise<void> {
    const made = await this.#options.platform.processes.run(MKFS, ['-q', '-F', '-t', 'ext4', '-m', '0', path], {
      timeoutMs: MKFS_MS,
    })
    if (made.code === 0) return
    const said = new TextDecoder().decode(made.stderr).trim().slice(0, 500)
    throw new UnavailableError('ERR_VOLUME', `an encrypted volume: mke2fs exited with ${made.code}: ${said}`, {
      hint: 'Give a larger disk, one that can be written.',
    })
  }

  async #device(volume: string): Promise<string> {
    const disk = this.#disks.get(volume)
    const device = disk === undefined ? undefined : await this.#options.platform.storage.findDisk(disk)
    if (device !== undefined) return device
    throw new AgentError('failedPrecondition', 'ERR_VOLUME_DISK', `volume ${volume} has no disk`)
  }
}
