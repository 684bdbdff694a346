/**
 * From a bundle to the normalised request that the agent takes: what the pod's author asked for beyond the image, and
 * nothing that containerd adds to every container. The guest's policy judges it; what the image itself says, the guest
 * takes from the image that it verified.
 */
import type { MessageInitShape } from '@bufbuild/protobuf'
import { UsageError } from '#protocol/errors'
import type { CreateContainerRequestSchema, MountSchema, ResourcesSchema } from '#protocol/gen/agent_pb'
import type { HostImageConfig } from '../containerd/image-config.ts'
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
  // The kubelet reads it on the host, which the guest shares no file with: the message stays empty.
  '/dev/termination-log',
])

export interface ContainerWish {
  readonly containerId: string
  readonly bundle: Bundle
  /** The host's view of the image. */
  readonly image: HostImageConfig
  readonly hostname: string
  readonly terminal: boolean
  readonly stdin: boolean
  /** Whether a directory of the host is a tmpfs: an emptyDir of medium Memory. */
  readonly isTmpfs: (path: string) => Promise<boolean>
}

/** @throws UsageError ERR_MOUNT_UNSUPPORTED */
export async function containerRequest(
  wish: ContainerWish,
): Promise<MessageInitShape<typeof CreateContainerRequestSchema>> {
  const { containerId, bundle, image, terminal, stdin } = wish
  const { process, annotations, resources } = bundle
  const own = [...image.entrypoint, ...image.cmd]
  const mounts: MessageInitShape<typeof MountSchema>[] = []
  for (const mount of bundle.mounts) {
    const volume = await volumeOf(mount, wish.isTmpfs)
    if (volume !== undefined) mounts.push(volume)
  }
  return {
    containerId,
    name: annotations[ANNOTATION.containerName] ?? '',
    image: annotations[ANNOTATION.imageName] ?? '',
    ...(sameList(process.args, own) ? {} : { args: { values: [...process.args] } }),
    env: addedEnv(process, image, wish),
    user: addedUser(process, image),
    workingDir: process.cwd === (image.workingDir === '' ? '/' : image.workingDir) ? '' : process.cwd,
    mounts,
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

async function volumeOf(
  mount: BundleMount,
  isTmpfs: ContainerWish['isTmpfs'],
): Promise<MessageInitShape<typeof MountSchema> | undefined> {
  const { destination, source, type, options } = mount
  if (OF_THE_GUEST.has(destination)) return undefined
  // A volume that the image declares: the guest has the verified image, and an empty directory of the host's says nothing.
  if (/\/io\.containerd\.[^/]*cri[^/]*\/containers\/[0-9a-f]+\/volumes\//.test(source)) return undefined
  const readOnly = options.includes('ro')
  if (type === 'tmpfs') return { kind: 'tmpfs', destination, readOnly }
  if (source.includes('/kubernetes.io~empty-dir/')) {
    return { kind: (await isTmpfs(source)) ? 'tmpfs' : 'scratch', destination, readOnly }
  }
  throw new UsageError('ERR_MOUNT_UNSUPPORTED', `the mount of ${source} on ${destination} cannot enter the guest`, {
    hint: 'Use emptyDir, or a secret that the verifier releases; for pods that need no API token, set automountServiceAccountToken: false',
  })
}

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index])
}
