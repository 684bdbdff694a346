/** The rule of one container, read from the policy. Whatever is absent is denied. */
import { errorText } from '#protocol/errors'
import { parseSealedSecret } from '#protocol/sealed-secret'
import { type ApiRule, readApiRule } from './api-rule.ts'
import { type ConditionRule, readConditionRules } from './condition-rule.ts'
import { type DeviceRule, readDeviceRule } from './device-rule.ts'
import type { PolicyNode } from './document.ts'
import { type EgressRule, readEgress } from './egress-rule.ts'
import { type EnvRule, parseEnvRules, RESOURCE_NAME } from './env-rule.ts'
import { type IdentityRule, readIdentityRule } from './identity-rule.ts'
import { type ImageRule, readImageRule } from './image-rule.ts'
import { type MountRule, readMountRule } from './mount-rule.ts'
import { parseResourceRule, type ResourceRule } from './resource-rule.ts'
import { readSeccomp, type SeccompRule } from './seccomp-rule.ts'
import type { VolumeRule } from './volume-rule.ts'

export type { MountRule } from './mount-rule.ts'

/** The image's own entrypoint and command, or exactly these. */
export type ArgsRule = { readonly kind: 'from-image' } | { readonly kind: 'exact'; readonly args: readonly string[] }

/** A resource of the verifier by its name, or a sealed secret and the resource of the key that must have signed it. */
export type SecretSource =
  | { readonly kind: 'resource'; readonly resource: string }
  | { readonly kind: 'sealed'; readonly sealed: string; readonly key: string }

export interface SecretRule {
  readonly source: SecretSource
  /** Absolute path of the file in the container. */
  readonly path: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

export interface ContainerRule extends ImageRule {
  readonly name: string
  readonly args: ArgsRule
  /** Variable → what the host may set it to, or the secret that the guest sets it to. */
  readonly env: ReadonlyMap<string, EnvRule>
  /** The host may set Kubernetes' variables for services (`NAME_SERVICE_HOST`, …) to addresses and ports. */
  readonly serviceEnv: boolean
  /** Undefined: only the image's own user. */
  readonly user: string | undefined
  /** Supplementary groups of every process, beside the image's own. */
  readonly groups: readonly number[]
  readonly workingDir: string | undefined
  readonly mounts: readonly MountRule[]
  readonly devices: readonly DeviceRule[]
  readonly secrets: readonly SecretRule[]
  /** What it may ask of the guest's loopback endpoint; undefined: nothing. */
  readonly api: ApiRule | undefined
  readonly identity: IdentityRule | undefined
  readonly readOnlyRoot: boolean
  readonly terminal: boolean
  readonly stdin: boolean
  readonly logs: boolean
  /** Absolute path of the file whose end the host reads when the container has ended; undefined: none. */
  readonly terminationMessage: string | undefined
  readonly exec: readonly (readonly string[])[]
  readonly ports: readonly number[]
  /** Whom it may connect to besides the containers of its pod; undefined: anybody. */
  readonly egress: readonly EgressRule[] | undefined
  /** Signals the host may send besides TERM, KILL and the image's stop signal. */
  readonly signals: readonly number[]
  /** Capabilities without the CAP_ prefix; the full bounding set of the container. */
  readonly capabilities: readonly string[]
  readonly seccomp: SeccompRule
  readonly resources: ResourceRule
  readonly conditions: readonly ConditionRule[]
  /** `init`: runs to its end before those that require it. */
  readonly role: 'main' | 'init'
  /**
   * Containers that must be there first: running, or ended with 0 where they are `init`. Secrets of this container are
   * fetched when it is created, so they wait for these, too.
   */
  readonly requires: readonly string[]
  /** The container whose processes this one sees, as an ephemeral container does that looks into another. */
  readonly targetContainer: string | undefined
  /** How many containers of this rule may exist at the same time. */
  readonly max: number
}

/** What a container may do when the policy does not say: the least that ordinary server images start with. */
export const DEFAULT_CAPABILITIES: readonly string[] = [
  'CHOWN',
  'DAC_OVERRIDE',
  'FOWNER',
  'FSETID',
  'KILL',
  'NET_BIND_SERVICE',
  'SETGID',
  'SETUID',
]

const MAX_LIST = 256
const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/

const CONTAINER_KEYS = [
  'name',
  'image',
  'signedBy',
  'sealedImage',
  'args',
  'env',
  'serviceEnv',
  'user',
  'groups',
  'workingDir',
  'mounts',
  'devices',
  'secrets',
  'api',
  'identity',
  'readOnlyRoot',
  'terminal',
  'stdin',
  'logs',
  'terminationMessage',
  'exec',
  'ports',
  'egress',
  'signals',
  'capabilities',
  'seccomp',
  'resources',
  'conditions',
  'role',
  'requires',
  'targetContainer',
  'max',
] as const

/** One entry of `containers`. `volumes` are the pod's, by name. Throws `MalformedError` ERR_POLICY_MALFORMED, naming path and line. */
export function readContainerRule(node: PolicyNode, volumes: ReadonlyMap<string, VolumeRule>): ContainerRule {
  const fields = node.fields(CONTAINER_KEYS)
  const name = matching(
    requiredField(fields, 'name', node),
    NAME,
    'must be a DNS label: lower-case letters, digits, dashes',
  )
  const capabilities = readCapabilities(fields.get('capabilities'))
  return {
    name,
    ...readImageRule(fields, node),
    args: parseArgs(fields.get('args')),
    env: parseEnvRules(fields.get('env')),
    serviceEnv: fields.get('serviceEnv')?.boolean() ?? false,
    user: fields.get('user')?.string(),
    groups: listOf(fields.get('groups'), (item) => item.integer(0, 0xfffffffe)),
    workingDir: optionalPath(fields.get('workingDir')),
    mounts: listOf(fields.get('mounts'), (item) => readMountRule(item, volumes)),
    devices: listOf(fields.get('devices'), (item) => readDeviceRule(item, volumes)),
    secrets: listOf(fields.get('secrets'), parseSecret),
    api: readApiRule(fields.get('api')),
    identity: readIdentityRule(fields.get('identity')),
    readOnlyRoot: fields.get('readOnlyRoot')?.boolean() ?? false,
    terminal: fields.get('terminal')?.boolean() ?? false,
    stdin: fields.get('stdin')?.boolean() ?? false,
    logs: fields.get('logs')?.oneOf(['none', 'allow']) === 'allow',
    terminationMessage: optionalPath(fields.get('terminationMessage')),
    exec: listOf(fields.get('exec'), (item) => nonEmpty(item, strings(item))),
    ports: listOf(fields.get('ports'), (item) => item.integer(1, 65535)),
    egress: readEgress(fields.get('egress'), capabilities),
    signals: listOf(fields.get('signals'), (item) => item.integer(1, 64)),
    capabilities,
    seccomp: readSeccomp(fields.get('seccomp')),
    resources: parseResourceRule(fields.get('resources')),
    conditions: readConditionRules(fields.get('conditions')),
    role: fields.get('role')?.oneOf(['main', 'init']) ?? 'main',
    requires: listOf(fields.get('requires'), (item) => matching(item, NAME, 'must be the name of a container')),
    targetContainer: optionalName(fields.get('targetContainer')),
    max: fields.get('max')?.integer(1, 1024) ?? 1,
  }
}

function readCapabilities(node: PolicyNode | undefined): readonly string[] {
  if (node === undefined) return DEFAULT_CAPABILITIES
  return listOf(node, (item) => matching(item, /^[A-Z_]{2,32}$/, 'must be a name such as NET_ADMIN'))
}

function parseArgs(node: PolicyNode | undefined): ArgsRule {
  if (node === undefined) return { kind: 'from-image' }
  if (!node.isList()) {
    node.oneOf(['from-image'])
    return { kind: 'from-image' }
  }
  return { kind: 'exact', args: nonEmpty(node, strings(node)) }
}

function parseSecret(node: PolicyNode): SecretRule {
  const fields = node.fields(['resource', 'sealed', 'key', 'path', 'mode', 'uid', 'gid'])
  const mode = fields.get('mode')
  return {
    source: parseSecretSource(node, fields),
    path: absolutePath(requiredField(fields, 'path', node)),
    mode:
      mode === undefined
        ? 0o400
        : Number.parseInt(matching(mode, /^0?[0-7]{3}$/, 'must be octal text such as "0400"'), 8),
    uid: fields.get('uid')?.integer(0, 0xfffffffe) ?? 0,
    gid: fields.get('gid')?.integer(0, 0xfffffffe) ?? 0,
  }
}

function parseSecretSource(node: PolicyNode, fields: Map<string, PolicyNode>): SecretSource {
  const [resource, sealed] = [fields.get('resource'), fields.get('sealed')]
  if (sealed === undefined) {
    if (fields.has('key')) throw node.fail('has a key, but nothing sealed')
    const name = resource ?? requiredField(fields, 'resource', node)
    return { kind: 'resource', resource: matching(name, RESOURCE_NAME, 'must be repository/type/tag') }
  }
  if (resource !== undefined) throw node.fail('has both resource and sealed')
  const key = matching(requiredField(fields, 'key', node), RESOURCE_NAME, 'must be repository/type/tag')
  try {
    parseSealedSecret(sealed.string())
  } catch (error) {
    throw sealed.fail(`cannot be read: ${errorText(error)}`)
  }
  return { kind: 'sealed', sealed: sealed.string(), key }
}

/** Absolute, normalised, no `..`: it names a place in the container that the guest mounts on. */
export function absolutePath(node: PolicyNode): string {
  const path = node.string()
  const parts = path.split('/').slice(1)
  if (
    !path.startsWith('/') ||
    path.length > 1024 ||
    parts.some((part) => part === '' || part === '.' || part === '..' || part.includes('\0'))
  ) {
    throw node.fail('must be an absolute path without empty, "." or ".." parts')
  }
  return path
}

function optionalName(node: PolicyNode | undefined): string | undefined {
  return node === undefined ? undefined : matching(node, NAME, 'must be the name of a container')
}

function optionalPath(node: PolicyNode | undefined): string | undefined {
  return node === undefined ? undefined : absolutePath(node)
}

function strings(node: PolicyNode): string[] {
  return bounded(node, MAX_LIST).map((item) => item.string())
}

function listOf<T>(node: PolicyNode | undefined, parse: (item: PolicyNode) => T): T[] {
  return node === undefined ? [] : bounded(node, MAX_LIST).map(parse)
}

export function bounded(node: PolicyNode, max: number): PolicyNode[] {
  const items = node.items()
  if (items.length > max) throw node.fail(`has ${items.length} entries, at most ${max}`)
  return items
}

function nonEmpty(node: PolicyNode, values: string[]): readonly string[] {
  if (values.length === 0) throw node.fail('must not be empty')
  return values
}

export function matching(node: PolicyNode, pattern: RegExp, problem: string): string {
  const text = node.string()
  if (!pattern.test(text)) throw node.fail(problem)
  return text
}

export function requiredField(fields: Map<string, PolicyNode>, key: string, parent: PolicyNode): PolicyNode {
  const field = fields.get(key)
  if (field === undefined) throw parent.fail(`lacks the key ${key}`)
  return field
}
