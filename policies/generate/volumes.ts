/** The volumes that a container mounts, as mount rules; what would share the host's file system is refused. */
import { bytesOf } from '../quantity.ts'
import { compact, type Draft, OpenChoice, type Refusal } from './draft.ts'
import { type KubeObject, objectOf, objectsOf, text } from './kubernetes-objects.ts'

export interface VolumesDraft {
  readonly mounts: readonly Draft[]
  readonly refusals: readonly Refusal[]
}

export function volumesOf(container: KubeObject, spec: KubeObject): VolumesDraft {
  const mounts: Draft[] = []
  const refusals: Refusal[] = []
  const volumes = objectsOf(spec.volumes)
  for (const mount of objectsOf(container.volumeMounts)) {
    const path = text(mount.mountPath) ?? ''
    const volume = volumes.find(({ name }) => name === mount.name)
    const place = `containers.${text(container.name) ?? '?'}.volumeMounts[${path}]`
    const emptyDir = objectOf(volume?.emptyDir) ?? (volume !== undefined && 'emptyDir' in volume ? {} : undefined)
    if (emptyDir === undefined) refusals.push(refuse(place, volume))
    else if (mount.subPath !== undefined || mount.subPathExpr !== undefined) {
      refusals.push({
        path: place,
        reason: 'a part of a volume (subPath) cannot be mounted',
        remedy: 'Mount the whole volume, or one volume for each path.',
      })
    } else mounts.push(emptyDirRule(emptyDir, path, mount.readOnly === true))
  }
  return { mounts, refusals }
}

function emptyDirRule(emptyDir: KubeObject, path: string, readOnly: boolean): Draft {
  const limit = text(emptyDir.sizeLimit)
  const bytes = limit === undefined ? undefined : bytesOf(limit)
  return compact({
    kind: emptyDir.medium === 'Memory' ? 'tmpfs' : 'scratch',
    path: path.length > 1 ? path.replace(/\/+$/, '') : path,
    readOnly: readOnly ? true : undefined,
    maxBytes: limit === undefined ? undefined : (bytes ?? new OpenChoice(`bytes of ${JSON.stringify(limit)}`)),
  })
}

const REASONS: Readonly<Record<string, readonly [string, string]>> = {
  hostPath: [
    'a directory of the host cannot be shared with a confidential guest: the host reads and changes what is in it',
    'Use an emptyDir, an image that holds the files, or a resource of the verifier.',
  ],
  secret: [
    'files of a Kubernetes Secret pass through the host, which reads them',
    'Store them with `caisson verifier resource put` and list them under `secrets` in the policy.',
  ],
  configMap: [
    'files of a ConfigMap come from the host, and nothing binds their contents',
    'Put them into the image, or store them as resources and list them under `secrets` in the policy.',
  ],
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
