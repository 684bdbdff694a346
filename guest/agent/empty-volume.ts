/**
 * Volumes that start empty. One on the scratch disk that has a limit is a file system of its own in a file: whoever is root
 * in a container can take files out of a quota of ext4's (FS_IOC_FSSETXATTR changes the project of a file that one owns),
 * and cannot make a file system larger. The limit includes what ext4 needs for itself, about two parts in a hundred.
 */
import type { EmptyVolumeRule } from '#policies/volume-rule'
import { UnavailableError } from '#protocol/errors'
import type { Platform } from '../platform/platform.ts'

const MKFS = '/usr/sbin/mke2fs'
const FEATURES = '^has_journal,^orphan_file,^resize_inode'

/** Less holds no file system: so small a volume of the disk is kept in memory, where its limit is exact. */
const MIN_DISK_BYTES = 1024 * 1024

export type EmptyVolumePlan = Pick<EmptyVolumeRule, 'kind' | 'maxBytes' | 'gid'>

export interface EmptyVolumePlaces {
  /** Below the scratch disk; a directory, or a file with ".img" behind it. */
  readonly scratch: string
  /** To mount on; made here. */
  readonly target: string
}

/** Any user of a container may write, as in Kubernetes; a group of its own is inherited by what is made in it. */
export function modeOf({ gid }: Pick<EmptyVolumeRule, 'gid'>): number {
  return gid === undefined ? 0o777 : 0o2777
}

/** Makes it and answers with its directory. @throws UnavailableError ERR_VOLUME */
export async function makeEmptyVolume(
  platform: Pick<Platform, 'files' | 'storage' | 'processes'>,
  plan: EmptyVolumePlan,
  places: EmptyVolumePlaces,
  undo: AsyncDisposableStack,
): Promise<string> {
  const { files, storage } = platform
  const { scratch, target } = places
  if (plan.kind === 'tmpfs' || (plan.maxBytes ?? MIN_DISK_BYTES) < MIN_DISK_BYTES) {
    undo.defer(() => files.remove(target))
    await files.mkdir(target, 0o711)
    const size = plan.maxBytes === undefined ? '' : `,size=${plan.maxBytes}`
    const data = `mode=${modeOf(plan).toString(8)},gid=${plan.gid ?? 0}${size}`
    await storage.mount({ source: 'tmpfs', target, type: 'tmpfs', flags: ['nosuid', 'nodev'], data })
    undo.defer(() => storage.unmount(target))
    return target
  }
  if (plan.maxBytes !== undefined) return limitedScratch(platform, { ...plan, maxBytes: plan.maxBytes }, places, undo)
  undo.defer(() => files.remove(scratch))
  await files.mkdir(scratch, modeOf(plan), { uid: 0, gid: plan.gid ?? 0 })
  return scratch
}

async function limitedScratch(
  { files, storage, processes }: Pick<Platform, 'files' | 'storage' | 'processes'>,
  plan: EmptyVolumePlan & { readonly maxBytes: number },
  { scratch, target }: EmptyVolumePlaces,
  undo: AsyncDisposableStack,
): Promise<string> {
  const image = `${scratch}.img`
  await files.mkdir(image.slice(0, image.lastIndexOf('/')), 0o711)
  undo.defer(() => files.remove(image))
  const options = ['-b', '4096', '-m', '0', '-O', FEATURES, '-E', 'lazy_itable_init=1,nodiscard']
  const size = `${Math.floor(plan.maxBytes / 1024)}k`
  const made = await processes.run(MKFS, ['-q', '-F', '-t', 'ext4', ...options, image, size])
  if (made.code !== 0) {
    const said = new TextDecoder().decode(made.stderr).trim().slice(0, 500)
    throw new UnavailableError('ERR_VOLUME', `a volume of ${size}: mke2fs exited with ${made.code}: ${said}`, {
      hint: 'Give the volume a larger limit, or the virtual machine a larger scratch disk.',
    })
  }
  const device = await storage.attachLoop(image, { readOnly: false })
  undo.defer(() => storage.detachLoop(device))
  undo.defer(() => files.remove(target))
  await files.mkdir(target, 0o711)
  const flags = ['nodev', 'nosuid', 'noatime'] as const
  await storage.mount({ source: device, target, type: 'ext4', flags, data: 'noinit_itable' })
  undo.defer(() => storage.unmount(target))
  // Not the root of the file system: programs that want an empty directory would find lost+found there.
  const directory = `${target}/v`
  await files.mkdir(directory, modeOf(plan), { uid: 0, gid: plan.gid ?? 0 })
  return directory
}
