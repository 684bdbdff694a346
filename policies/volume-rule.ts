/**
 * The volumes of a pod, read from the policy: what each is, and for those that the host fills, how much of it the host
 * may choose. Containers mount them by name.
 */
import { bounded, matching, requiredField } from './container-rule.ts'
import type { PolicyNode } from './document.ts'
import { RESOURCE_NAME } from './env-rule.ts'

/** What the kubelet fills: the host reads and writes it before the guest gets it. */
export const CONTENT_KINDS = ['config-map', 'secret', 'projected', 'downward-api'] as const
export type ContentKind = (typeof CONTENT_KINDS)[number]

/** Starts empty. `scratch`: on the encrypted scratch disk; `tmpfs`: in guest memory. */
export interface EmptyVolumeRule {
  readonly kind: 'scratch' | 'tmpfs'
  readonly name: string
  /** Enforced. Undefined: as much as the disk, or half of the memory, holds. */
  readonly maxBytes: number | undefined
  /** Group that owns it and everything in it (Kubernetes' fsGroup). */
  readonly gid: number | undefined
}

export interface ContentVolumeRule {
  readonly kind: ContentKind
  readonly name: string
  /** The host may replace the content while containers run. */
  readonly mutable: boolean
  /** `volumeDigest` of the only content that is admitted. */
  readonly digest: string | undefined
  /** Of every file; Kubernetes' own modes are the host's words. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

/** A block device of the host, as it is: the host reads and writes it. */
export interface BlockVolumeRule {
  readonly kind: 'block'
  readonly name: string
}

/** An ext4 file system in LUKS2 on a block device of the host. */
export interface LuksVolumeRule {
  readonly kind: 'luks'
  readonly name: string
  /** Resource of the verifier that is its passphrase. */
  readonly key: string
  /** A disk without any content is formatted. */
  readonly formatEmpty: boolean
  readonly gid: number | undefined
}

export type VolumeRule = EmptyVolumeRule | ContentVolumeRule | BlockVolumeRule | LuksVolumeRule

const MAX_ID = 0xfffffffe
const MAX_VOLUMES = 64
const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
const DEFAULT_MODE = 0o444

/** The entries of `volumes` by name. Throws `MalformedError` ERR_POLICY_MALFORMED, naming path and line. */
export function readVolumeRules(node: PolicyNode | undefined): ReadonlyMap<string, VolumeRule> {
  const rules = new Map<string, VolumeRule>()
  for (const item of node === undefined ? [] : bounded(node, MAX_VOLUMES)) {
    const rule = readVolumeRule(item)
    if (rules.has(rule.name)) throw item.fail(`repeats the name ${JSON.stringify(rule.name)}`)
    rules.set(rule.name, rule)
  }
  return rules
}

export function isContentRule(rule: VolumeRule): rule is ContentVolumeRule {
  return CONTENT_KINDS.some((kind) => kind === rule.kind)
}

function readVolumeRule(node: PolicyNode): VolumeRule {
  const kind = requiredField(node.entries(), 'kind', node).oneOf([
    ...(['scratch', 'tmpfs', 'block', 'luks'] as const),
    ...CONTENT_KINDS,
  ])
  switch (kind) {
    case 'scratch':
    case 'tmpfs':
      return readEmpty(node, kind)
    case 'block':
      return { kind, name: nameOf(node.fields(['name', 'kind']), node) }
    case 'luks':
      return readLuks(node)
    case 'config-map':
    case 'secret':
    case 'projected':
    case 'downward-api':
      return readContent(node, kind)
  }
}

function readLuks(node: PolicyNode): LuksVolumeRule {
  const fields = node.fields(['name', 'kind', 'key', 'format', 'gid'])
  return {
    kind: 'luks',
    name: nameOf(fields, node),
    key: matching(requiredField(fields, 'key', node), RESOURCE_NAME, 'must be repository/type/tag'),
    formatEmpty: fields.get('format')?.oneOf(['never', 'empty']) === 'empty',
    gid: idOf(fields, 'gid'),
  }
}

function readEmpty(node: PolicyNode, kind: EmptyVolumeRule['kind']): EmptyVolumeRule {
  const fields = node.fields(['name', 'kind', 'maxBytes', 'gid'])
  return { kind, name: nameOf(fields, node), maxBytes: readMaxBytes(fields), gid: idOf(fields, 'gid') }
}

/** Of a volume, or of a mount that is a volume of its own. */
export function readMaxBytes(fields: Map<string, PolicyNode>): number | undefined {
  return fields.get('maxBytes')?.integer(4096, Number.MAX_SAFE_INTEGER)
}

function readContent(node: PolicyNode, kind: ContentKind): ContentVolumeRule {
  const fields = node.fields(['name', 'kind', 'mutable', 'digest', 'mode', 'uid', 'gid'])
  const [mutable, digest, mode] = [fields.get('mutable'), fields.get('digest'), fields.get('mode')]
  if (mutable?.boolean() === true && digest !== undefined) {
    throw node.fail('is mutable and has a digest', 'One content has one digest: keep one of the two.')
  }
  return {
    kind,
    name: nameOf(fields, node),
    mutable: mutable?.boolean() ?? false,
    digest:
      digest === undefined ? undefined : matching(digest, /^sha256:[0-9a-f]{64}$/, 'must be sha256:<64 hex digits>'),
    mode: mode === undefined ? DEFAULT_MODE : readMode(mode),
    uid: idOf(fields, 'uid') ?? 0,
    gid: idOf(fields, 'gid') ?? 0,
  }
}

function readMode(node: PolicyNode): number {
  return Number.parseInt(matching(node, /^0?[0-7]{3}$/, 'must be octal text such as "0440"'), 8)
}

function nameOf(fields: Map<string, PolicyNode>, parent: PolicyNode): string {
  return matching(
    requiredField(fields, 'name', parent),
    NAME,
    'must be a DNS label: lower-case letters, digits, dashes',
  )
}

function idOf(fields: Map<string, PolicyNode>, key: string): number | undefined {
  return fields.get(key)?.integer(0, MAX_ID)
}
