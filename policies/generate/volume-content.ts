/** The files that the kubelet makes of a ConfigMap, as far as the YAML shows it. */
import { fromBase64 } from '#protocol/encoding'
import { CaissonError } from '#protocol/errors'
import { checkVolumeFiles, type VolumeFile } from '#protocol/volume-content'
import { type KubeObject, type KubernetesObjects, objectOf, objectsOf, text } from './kubernetes-objects.ts'

/** Undefined where the files are not known, or no guest would take them. */
export function configMapFiles(source: KubeObject, objects: KubernetesObjects): readonly VolumeFile[] | undefined {
  const object = objects.configMaps.get(text(source.name) ?? '')
  const contents = object === undefined ? undefined : contentsOf(object)
  if (contents === undefined) return undefined
  const items = 'items' in source ? objectsOf(source.items) : undefined
  const wanted = items?.map((item) => [text(item.key) ?? '', text(item.path) ?? ''] as const)
  const files = (wanted ?? [...contents.keys()].map((key) => [key, key] as const)).flatMap(([key, path]) => {
    const content = contents.get(key)
    return content === undefined ? [] : [{ path, content }]
  })
  if (wanted !== undefined && files.length !== wanted.length) return undefined
  return isTaken(files) ? files : undefined
}

function contentsOf(object: KubeObject): ReadonlyMap<string, Uint8Array> | undefined {
  const plain = Object.entries(objectOf(object.data) ?? {}).map(
    ([key, value]) => [key, new TextEncoder().encode(text(value) ?? '')] as const,
  )
  try {
    const binary = Object.entries(objectOf(object.binaryData) ?? {}).map(
      ([key, value]) => [key, fromBase64(text(value) ?? '', key)] as const,
    )
    return new Map([...plain, ...binary])
  } catch (error) {
    if (error instanceof CaissonError) return undefined
    throw error
  }
}

function isTaken(files: readonly VolumeFile[]): boolean {
  try {
    checkVolumeFiles(files)
    return true
  } catch (error) {
    if (error instanceof CaissonError) return false
    throw error
  }
}
