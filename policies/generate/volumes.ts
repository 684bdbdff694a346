/** The volumes of a pod and what containers mount of them; what would share the host's file system is refused. */
import type { VolumeFile } from '#protocol/volume-content'
import { bytesOf } from '../quantity.ts'
import { compact, type Draft, type DraftMap, OpenChoice, type Refusal, Remarked } from './draft.ts'
import { type KubeObject, type KubernetesObjects, objectOf, objectsOf, text } from './kubernetes-objects.ts'
import { configMapFiles } from './volume-content.ts'

export interface VolumesDraft {
  readonly mounts: readonly Draft[]
  readonly refusals: readonly Refusal[]
}

export interface PodVolumesContext {
  readonly spec: KubeObject
  readonly objects: KubernetesObjects
  /** `volumeDigest`; undefined: digests stay choices. */
  readonly digest: ((files: readonly VolumeFile[]) => string) | undefined
}

const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/

/** The entries of `volumes` for those that some container mounts. */
export function podVolumes(context: PodVolumesContext, containers: readonly KubeObject[]): readonly DraftMap[] {
  const namesOf = (list: string): ReadonlySet<unknown> =>
    new Set(containers.flatMap((container) => objectsOf(container[list]).map(({ name }) => name)))
  const [mounted, devices] = [namesOf('volumeMounts'), namesOf('volumeDevices')]
  return uniqueVolumes(context.spec)
    .map((volume) => {
      if (devices.has(volume.name)) return blockDraft(volume)
      return mounted.has(volume.name) ? draftOf(volume, context) : undefined
    })
    .filter((draft) => draft !== undefined)
}

export function volumesOf(container: KubeObject, context: PodVolumesContext): VolumesDraft {
  const mounts: Draft[] = []
  const refusals: Refusal[] = []
  const volumes = uniqueVolumes(context.spec)
  for (const mount of objectsOf(container.volumeMounts)) {
    const path = text(mount.mountPath) ?? ''
    const volume = volumes.find(({ name }) => name === mount.name)
    const place = `containers.${text(container.name) ?? '?'}.volumeMounts[${path}]`
    if (volume === undefined || draftOf(volume, context) === undefined) refusals.push(refuse(place, volume))
    else if (mount.subPathExpr !== undefined) {
      refusals.push({
        path: place,
        reason: 'a part of a volume that depends on the environment (subPathExpr) is the host’s to choose',
        remedy: 'Name the part (subPath), or mount the whole volume.',
      })
    } else {
      mounts.push(
        compact({
          volume: text(volume.name),
          path: path.length > 1 ? path.replace(/\/+$/, '') : path,
          subPath: text(mount.subPath)?.replace(/\/+$/, ''),
          readOnly: mount.readOnly === true ? true : undefined,
        }),
      )
    }
  }
  return { mounts, refusals }
}

/** Block volumes (volumeMode: Block), under the names of the pod. */
export function devicesOf(container: KubeObject, { spec }: PodVolumesContext): readonly Draft[] {
  const names = uniqueVolumes(spec).map(({ name }) => name)
  return objectsOf(container.volumeDevices).flatMap(({ name, devicePath }) =>
    names.includes(name) ? [compact({ volume: text(name), path: text(devicePath) })] : [],
  )
}

function blockDraft(volume: KubeObject): DraftMap {
  const question = 'luks (with key: repository/type/tag of the verifier), or block (the host reads and changes it)?'
  return compact({ name: text(volume.name), kind: new OpenChoice(question) })
}

/** Two volumes of one name are no pod of Kubernetes. */
function uniqueVolumes(spec: KubeObject): readonly KubeObject[] {
  const all = objectsOf(spec.volumes)
  return all.filter(
    ({ name }, index) => NAME.test(text(name) ?? '') && all.findIndex((other) => other.name === name) === index,
  )
}

/** Undefined for what no guest gets. */
function draftOf(volume: KubeObject, context: PodVolumesContext): DraftMap | undefined {
  const name = text(volume.name) ?? ''
  const gid = groupOf(context.spec)
  const source = (kind: string): KubeObject | undefined => (kind in volume ? (objectOf(volume[kind]) ?? {}) : undefined)
  const emptyDir = source('emptyDir')
  if (emptyDir !== undefined) return emptyDirDraft(name, emptyDir, gid)
  const configMap = source('configMap')
  if (configMap !== undefined) {
    const files = configMapFiles(configMap, context.objects)
    const digest = files === undefined ? undefined : context.digest?.(files)
    const open = new OpenChoice(
      `digest of ${text(configMap.name) ?? 'the ConfigMap'}: give its YAML too; or write mutable: true, then the host chooses`,
    )
    return compact({ name, kind: 'config-map', digest: digest ?? open, mode: modeOf(configMap), gid })
  }
  const secret = source('secret')
  if (secret !== undefined) {
    const kind = new Remarked(
      'secret',
      'the host reads it and may put in anything: better a resource of the verifier (secrets)',
    )
    return compact({ name, kind, mode: modeOf(secret), gid })
  }
  const changes = (kind: string, given: KubeObject): DraftMap =>
    compact({
      name,
      kind: new Remarked(kind, 'the host chooses what is in it'),
      mutable: true,
      mode: modeOf(given),
      gid,
    })
  const [projected, downward] = [source('projected'), source('downwardAPI')]
  if (projected !== undefined) return changes('projected', projected)
  return downward === undefined ? undefined : changes('downward-api', downward)
}

function emptyDirDraft(name: string, emptyDir: KubeObject, gid: number | undefined): DraftMap {
  const limit = text(emptyDir.sizeLimit)
  const bytes = limit === undefined ? undefined : bytesOf(limit)
  const open = new OpenChoice(`bytes of ${JSON.stringify(limit)}`)
  return compact({
    name,
    kind: emptyDir.medium === 'Memory' ? 'tmpfs' : 'scratch',
    maxBytes: limit === undefined ? undefined : bytes === undefined || bytes < 4096 ? open : bytes,
    gid,
  })
}

/** fsGroup of the pod. */
export function groupOf(spec: KubeObject): number | undefined {
  const group = objectOf(spec.securityContext)?.fsGroup
  return typeof group === 'number' && Number.isInteger(group) && group >= 0 && group < 0xffffffff ? group : undefined
}

/** YAML's 0400 is 256 to Kubernetes and 400 to others. */
function modeOf(source: KubeObject): OpenChoice | undefined {
  const given = text(source.defaultMode)
  return given === undefined
    ? undefined
    : new OpenChoice(`permissions of the files in octal, such as "0440"; defaultMode reads ${given}`)
}

const ENCRYPTED = 'Use a block volume (volumeMode: Block, volumeDevices) that the guest encrypts, or an emptyDir.'

const REASONS: Readonly<Record<string, readonly [string, string]>> = {
  hostPath: [
    'a directory of the host cannot be shared with a confidential guest: the host reads and changes what is in it',
    'Use an emptyDir, an image that holds the files, or a resource of the verifier.',
  ],
  persistentVolumeClaim: ['the file system of a claim is the host’s, which reads and changes it', ENCRYPTED],
  ephemeral: ['the file system of a claim is the host’s, which reads and changes it', ENCRYPTED],
  csi: ['the file system of a driver is the host’s, which reads and changes it', ENCRYPTED],
}

function refuse(path: string, volume: KubeObject | undefined): Refusal {
  const kind = Object.keys(volume ?? {}).find((key) => key !== 'name')
  if (kind === undefined) return { path, reason: 'the pod has no volume of this name', remedy: 'Correct the name.' }
  const [reason, remedy] = REASONS[kind] ?? [
    `a volume of the kind ${kind} cannot be given to a confidential guest`,
    'Use an emptyDir, or a resource of the verifier.',
  ]
  return { path, reason, remedy }
}
