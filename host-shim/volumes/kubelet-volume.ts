/**
 * What a mount of a container is to the kubelet, told by where it lies on the host:
 * `<root>/pods/<uid>/volumes/kubernetes.io~<plugin>/<volume>`, `…/volume-subpaths/<volume>/<container>/<index>` for a part
 * of one, and `…/containers/<container>/<id>` for the termination message. Everything else is the host's own.
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { UsageError } from '#protocol/errors'
import { VolumeKind } from '#protocol/gen/agent_pb'

/** The names of content volumes in requests, and in messages that fill them. */
export const CONTENT_VOLUMES: Readonly<Record<ContentKind, VolumeKind>> = {
  'config-map': VolumeKind.CONFIG_MAP,
  secret: VolumeKind.SECRET,
  projected: VolumeKind.PROJECTED,
  'downward-api': VolumeKind.DOWNWARD_API,
}
export type ContentKind = 'config-map' | 'secret' | 'projected' | 'downward-api'

/** `name` is the volume's in the pod. `directory` is the kubelet's for the whole of it. */
export type KubeletVolume =
  | { readonly kind: 'empty-dir'; readonly name: string; readonly directory: string }
  | { readonly kind: ContentKind; readonly name: string; readonly directory: string }

const PLUGINS: Readonly<Record<string, KubeletVolume['kind']>> = {
  'kubernetes.io~empty-dir': 'empty-dir',
  'kubernetes.io~configmap': 'config-map',
  'kubernetes.io~secret': 'secret',
  'kubernetes.io~projected': 'projected',
  'kubernetes.io~downward-api': 'downward-api',
}

const VOLUME = /^(?<volumes>.*\/pods\/[^/]+\/volumes)\/(?<plugin>kubernetes\.io~[^/]+)\/(?<name>[^/]+)(?<rest>\/.*)?$/
const SUB_PATH = /^(?<pod>.*\/pods\/[^/]+)\/volume-subpaths\/(?<name>[^/]+)\/[^/]+\/[0-9]+$/
const OF_SANDBOX =
  /\/io\.containerd\.[^/]*cri[^/]*\/sandboxes\/[^/]+\/(?:hostname|hosts|resolv\.conf|shm)$|\/pods\/[^/]+\/etc-hosts$/
const TERMINATION = /\/pods\/[^/]+\/containers\/[^/]+\/[0-9a-f]{1,16}$/
const TOKEN_VOLUME = /^(?<name>kube-api-access)-[a-z0-9]{5}$/

/** What kubelet and containerd make for every container of a pod: names, resolver and shared memory. */
export function isOfSandbox(source: string): boolean {
  return OF_SANDBOX.test(source)
}

/** The file that the kubelet reads when a container has ended. */
export function isTerminationMessage(source: string): boolean {
  return TERMINATION.test(source)
}

/**
 * The volume that `source` belongs to.
 * @throws UsageError ERR_MOUNT_UNSUPPORTED for what would share a file system of the host with the guest
 */
export async function kubeletVolume(source: string, destination: string): Promise<KubeletVolume> {
  const { volumes = '', plugin = '', name = '', rest } = VOLUME.exec(source)?.groups ?? {}
  const kind = PLUGINS[plugin]
  if (kind !== undefined && rest === undefined) return { kind, name: volumeName(name), directory: source }
  const part = SUB_PATH.exec(source)?.groups
  if (part !== undefined) return whole(join(part.pod ?? '', 'volumes'), part.name ?? '', { source, destination })
  throw unsupported({ source, destination }, volumes === '' ? '' : plugin)
}

/**
 * The service account's token has a volume with a new name for every pod, which no policy could know: it is told by the name
 * without its random end.
 */
function volumeName(name: string): string {
  return TOKEN_VOLUME.exec(name)?.groups?.name ?? name
}

/** A part of a volume is mounted by its number: its kind is that of the volume with this name. */
async function whole(volumes: string, name: string, mount: MountPlace): Promise<KubeletVolume> {
  const plugins = await readdir(volumes).catch((): string[] => [])
  for (const plugin of plugins.toSorted()) {
    const kind = PLUGINS[plugin]
    const names = await readdir(join(volumes, plugin)).catch((): string[] => [])
    if (!names.includes(name)) continue
    if (kind === undefined) throw unsupported(mount, plugin)
    return { kind, name: volumeName(name), directory: join(volumes, plugin, name) }
  }
  throw unsupported(mount, '')
}

interface MountPlace {
  readonly source: string
  readonly destination: string
}

function unsupported({ source, destination }: MountPlace, plugin: string): UsageError {
  const what = plugin === '' ? `a path of the host (${source})` : `a volume of ${plugin.replace('~', '/')}`
  return new UsageError(
    'ERR_MOUNT_UNSUPPORTED',
    `${destination} is ${what}: it would share a file system of the host, which reads and changes what is in it`,
    {
      hint:
        plugin === ''
          ? 'Use an emptyDir, a file of the image, or a secret that the verifier releases'
          : 'Use an emptyDir, or a block volume (volumeMode: Block) that the guest encrypts',
    },
  )
}
