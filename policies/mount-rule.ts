/** What a container mounts: volumes of the pod by their names, and volumes of its own. */
import { absolutePath, requiredField } from './container-rule.ts'
import type { PolicyNode } from './document.ts'
import { isContentRule, readMaxBytes, type VolumeRule } from './volume-rule.ts'

export interface MountRule {
  /** Of the volume; a volume of the container's own is `scratch` or `tmpfs`. */
  readonly kind: VolumeRule['kind']
  readonly path: string
  readonly readOnly: boolean
  /** Of a volume of its own. */
  readonly maxBytes: number | undefined
  /** Mounted whether or not the host asks for it. */
  readonly required: boolean
  /** Undefined: a volume of the container's own, which ends with it. */
  readonly volume: VolumeRule | undefined
  /** Part of the volume that is mounted, resolved inside it; undefined: all of it. */
  readonly subPath: string | undefined
}

const MAX_SUB_PATH = 1024

/** Bytes that it holds at most: the volume's own limit, for one of the pod. Undefined: none. */
export function maxBytesOf({ maxBytes, volume }: MountRule): number | undefined {
  return volume !== undefined && 'maxBytes' in volume ? volume.maxBytes : maxBytes
}

/** One entry of `mounts`. Throws `MalformedError` ERR_POLICY_MALFORMED, naming path and line. */
export function readMountRule(node: PolicyNode, volumes: ReadonlyMap<string, VolumeRule>): MountRule {
  return node.entries().has('volume') ? readVolumeMount(node, volumes) : readOwnMount(node)
}

function readVolumeMount(node: PolicyNode, volumes: ReadonlyMap<string, VolumeRule>): MountRule {
  const fields = node.fields(['volume', 'path', 'readOnly', 'subPath', 'required'])
  const name = requiredField(fields, 'volume', node)
  const volume = volumes.get(name.string())
  if (volume?.kind === 'block') {
    throw name.fail('is a block device, which has no files', 'List it under `devices`.')
  }
  if (volume === undefined) {
    throw name.fail(`is ${JSON.stringify(name.string())}, which is no volume here`, 'Declare it under `volumes`.')
  }
  return {
    kind: volume.kind,
    path: absolutePath(requiredField(fields, 'path', node)),
    // The guest alone writes these.
    readOnly: isContentRule(volume) || (fields.get('readOnly')?.boolean() ?? false),
    maxBytes: undefined,
    required: fields.get('required')?.boolean() ?? true,
    volume,
    subPath: readSubPath(fields.get('subPath')),
  }
}

function readOwnMount(node: PolicyNode): MountRule {
  const fields = node.fields(['kind', 'path', 'readOnly', 'maxBytes', 'required'])
  const kind = requiredField(fields, 'kind', node).oneOf(['scratch', 'tmpfs'])
  return {
    kind,
    path: absolutePath(requiredField(fields, 'path', node)),
    readOnly: fields.get('readOnly')?.boolean() ?? false,
    maxBytes: readMaxBytes(fields),
    required: fields.get('required')?.boolean() ?? true,
    volume: undefined,
    subPath: undefined,
  }
}

/** Relative, normalised, no `..`. Links in the volume are another matter: the guest resolves them inside it. */
function readSubPath(node: PolicyNode | undefined): string | undefined {
  if (node === undefined) return undefined
  const path = node.string()
  const parts = path.split('/')
  if (path.length > MAX_SUB_PATH || parts.some((part) => /^\.{0,2}$/.test(part) || part.includes('\0'))) {
    throw node.fail('must be a relative path without empty, "." or ".." parts')
  }
  return path
}
