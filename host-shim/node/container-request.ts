/**
 * From a bundle to the normalised request that the agent takes: what the pod's author asked for beyond the image, and
 * nothing that containerd adds to every container. The guest's policy judges it; what the image itself says, the guest
 * takes from the image that it verified.
 */
import type { MessageInitShape } from '@bufbuild/protobuf'
import { UsageError } from '#protocol/errors'
import type { CreateContainerRequestSchema, ResourcesSchema } from '#protocol/gen/agent_pb'
import type { HostImageConfig } from '../containerd/image-config.ts'
import { type ContentKind, isOfSandbox, isTerminationMessage, kubeletVolume } from '../volumes/kubelet-volume.ts'
import type { FedVolume } from '../volumes/volume-feed.ts'
import { ANNOTATION } from './annotations.ts'
import type { Bundle, BundleMount, BundleProcess, BundleResources } from './bundle.ts'

/**
 * Stands for a named user of the image, which containerd looks up in a root filesystem that has no layers. No image
 * means it: containerd takes no larger id.
 */
export const UNRESOLVED_ID = 2_147_483_646

const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Mounts that the guest makes itself: kernel file systems, and the files of the sandbox. */
const OF_THE_GUEST: ReadonlySet<string> = new Set([
  '/proc',
  '/dev',
  '/dev/pts',
  '/dev/shm',
  '/dev/mqueue',
  '/sys',
  '/sys/fs/cgroup',
  '/run',
  '/etc/hosts',
  '/etc/hostname',
  '/etc/resolv.conf',
])

export interface ContainerWish {
  readonly containerId: string
  readonly bundle: Bundle
  /** The host's view of the image. */
  readonly image: HostImageConfig
  readonly hostname: string
  readonly terminal: boolean
  readonly stdin: boolean
  readonly volumes: readonly MountedVolume[]
  /** Block devices of the pod's VM. */
  readonly disks: readonly { readonly serial: string; readonly number: string }[]
}

/** A volume of the pod, at its place in the container. */
export interface MountedVolume {
  readonly destination: string
  readonly readOnly: boolean
  readonly kind: 'scratch' | 'tmpfs' | ContentKind
  /** Name of the pod's volume; empty for one that only the container has. */
  readonly name: string
  /** What the host brings into it; undefined for volumes that start empty. */
  readonly content: FedVolume | undefined
}

export function containerRequest(wish: ContainerWish): MessageInitShape<typeof CreateContainerRequestSchema> {
  const { containerId, bundle, image, terminal, stdin } = wish
  const { process, annotations, resources } = bundle
  const own = [...image.entrypoint, ...image.cmd]
  return {
    containerId,
    name: annotations[ANNOTATION.containerName] ?? '',
    image: annotations[ANNOTATION.imageName] ?? '',
    ...(sameList(process.args, own) ? {} : { args: { values: [...process.args] } }),
    env: addedEnv(process, image, wish),
    user: addedUser(process, image),
    workingDir: process.cwd === (image.workingDir === '' ? '/' : image.workingDir) ? '' : process.cwd,
    mounts: wish.volumes.map(({ kind, destination, readOnly, name }) => ({
      kind,
      destination,
      readOnly,
      volume: name,
    })),
    groups: addedGroups(process),
    devices: requestedDevices(bundle, wish.disks),
    sharesProcesses: bundle.sharesProcesses,
    terminal,
    stdin,
    resources: requestedLimits(resources),
  }
}

export function requestedLimits(resources: BundleResources): MessageInitShape<typeof ResourcesSchema> {
  return {
    memoryLimitBytes: resources.memoryBytes,
    cpuQuotaUs: resources.cpuQuotaUs,
    cpuPeriodUs: resources.cpuQuotaUs === 0n ? 0n : resources.cpuPeriodUs,
    cpuShares: resources.cpuShares,
    pidsLimit: resources.pids,
  }
}

export interface ExecWish {
  readonly args: readonly string[]
  readonly env: readonly string[]
  readonly user: string
  readonly workingDir: string
}

/** What an exec asks for beyond the container's first process: its arguments, and usually nothing else. */
export function execRequest(
  process: BundleProcess,
  first: { readonly env: readonly string[]; readonly user: string; readonly workingDir: string },
): ExecWish {
  const known = new Set([...first.env, 'TERM=xterm'])
  const user = `${process.uid}:${process.gid}`
  return {
    args: process.args,
    env: process.env.filter((entry) => !known.has(entry)),
    user: user === first.user ? '' : user,
    workingDir: process.cwd === first.workingDir ? '' : process.cwd,
  }
}

function addedEnv(process: BundleProcess, image: HostImageConfig, wish: ContainerWish): string[] {
  const given = new Set([...image.env, `HOSTNAME=${wish.hostname}`])
  if (wish.terminal) given.add('TERM=xterm')
  if (!image.env.some((entry) => entry.startsWith('PATH='))) given.add(DEFAULT_PATH)
  return process.env.filter((entry) => !given.has(entry))
}

/** Empty when the image's own user was asked for. */
function addedUser({ uid, gid }: BundleProcess, image: HostImageConfig): string {
  const [user = '', group] = image.user.split(':', 2)
  const imageUid = /^[0-9]+$/.test(user) ? Number(user) : user === '' ? 0 : UNRESOLVED_ID
  const imageGid = group === undefined || !/^[0-9]+$/.test(group) ? undefined : Number(group)
  if (uid === imageUid && (imageGid === undefined || gid === imageGid || gid === UNRESOLVED_ID)) return ''
  return gid === 0 || gid === UNRESOLVED_ID ? String(uid) : `${uid}:${gid}`
}

/** Block devices that the kubelet has prepared (`volumeDevices`). @throws UsageError ERR_MOUNT_UNSUPPORTED for others */
function requestedDevices({ devices }: Bundle, disks: ContainerWish['disks']): { path: string; disk: string }[] {
  return devices.map(({ path, type, number }) => {
    const disk = type === 'b' ? disks.find((known) => known.number === number) : undefined
    if (disk !== undefined) return { path, disk: disk.serial }
    throw new UsageError('ERR_MOUNT_UNSUPPORTED', `${path} is a device of the host, which guests do not get`, {
      hint: 'Block volumes of the pod (volumeDevices) can be given to a guest, and no other devices',
    })
  })
}

/** fsGroup and supplementalGroups; what the image's own files say of its user, the guest reads there. */
function addedGroups({ gid, additionalGids }: BundleProcess): number[] {
  return [...new Set(additionalGids)].filter((group) => group !== gid && group !== UNRESOLVED_ID)
}

/**
 * What the kubelet gives a container to mount; what the guest makes itself is left out.
 * @param isTmpfs whether a directory of the host is a tmpfs: an emptyDir of medium Memory
 * @throws UsageError ERR_MOUNT_UNSUPPORTED
 */
export async function mountedVolumes(
  mounts: readonly BundleMount[],
  isTmpfs: (path: string) => Promise<boolean>,
): Promise<readonly MountedVolume[]> {
  const volumes: MountedVolume[] = []
  for (const { destination, source, type, options } of mounts) {
    const readOnly = options.includes('ro')
    // A volume may stand in the place of what the guest makes: a larger /dev/shm, a file for /etc/hosts.
    // A directory of the host there is refused below like any other.
    if (OF_THE_GUEST.has(destination) && (type !== 'bind' || isOfSandbox(source))) continue
    if (isTerminationMessage(source)) continue
    // A volume that the image declares: the guest has the verified image, and an empty directory of the host's says nothing.
    if (/\/io\.containerd\.[^/]*cri[^/]*\/containers\/[0-9a-f]+\/volumes\//.test(source)) continue
    if (type === 'tmpfs') {
      volumes.push({ kind: 'tmpfs', destination, readOnly, name: '', content: undefined })
      continue
    }
    const { kind, name, directory } = await kubeletVolume(source, destination)
    if (kind === 'empty-dir') {
      const medium = (await isTmpfs(directory)) ? 'tmpfs' : 'scratch'
      volumes.push({ kind: medium, destination, readOnly, name, content: undefined })
    } else volumes.push({ kind, destination, readOnly, name, content: { kind, name, directory } })
  }
  return volumes
}

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index])
}
