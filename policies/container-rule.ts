/** The rule of one container, read from the policy. Whatever is absent is denied. */
import type { PolicyNode } from './document.ts'
import { type EnvRule, parseEnvRules, RESOURCE_NAME } from './env-rule.ts'
import { type IdentityRule, readIdentityRule } from './identity-rule.ts'
import { parseResourceRule, type ResourceRule } from './resource-rule.ts'

/** The image's own entrypoint and command, or exactly these. */
export type ArgsRule = { readonly kind: 'from-image' } | { readonly kind: 'exact'; readonly args: readonly string[] }

export interface MountRule {
  /** `scratch`: a directory on the encrypted scratch disk; `tmpfs`: guest memory. Both start empty. */
  readonly kind: 'scratch' | 'tmpfs'
  readonly path: string
  readonly readOnly: boolean
  readonly maxBytes: number | undefined
  /** Mounted whether or not the host asks for it. */
  readonly required: boolean
}

export interface SecretRule {
  /** `repository/type/tag` at the verifier. */
  readonly resource: string
  /** Absolute path of the file in the container. */
  readonly path: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

export interface ContainerRule {
  readonly name: string
  /** host[:port]/path without tag. */
  readonly repository: string
  /** sha256:… of the manifest (or of an index that the guest binds to its platform's manifest). */
  readonly digest: string
  readonly args: ArgsRule
  /** Variable → what the host may set it to, or the secret that the guest sets it to. */
  readonly env: ReadonlyMap<string, EnvRule>
  /** The host may set Kubernetes' variables for services (`NAME_SERVICE_HOST`, …) to addresses and ports. */
  readonly serviceEnv: boolean
  /** Undefined: only the image's own user. */
  readonly user: string | undefined
  readonly workingDir: string | undefined
  readonly mounts: readonly MountRule[]
  readonly secrets: readonly SecretRule[]
  readonly identity: IdentityRule | undefined
  readonly readOnlyRoot: boolean
  readonly terminal: boolean
  readonly stdin: boolean
  readonly logs: boolean
  readonly exec: readonly (readonly string[])[]
  readonly ports: readonly number[]
  /** Signals the host may send besides TERM, KILL and the image's stop signal. */
  readonly signals: readonly number[]
  /** Capabilities without the CAP_ prefix; the full bounding set of the container. */
  readonly capabilities: readonly string[]
  readonly resources: ResourceRule
  /** `init`: runs to its end before those that require it. */
  readonly role: 'main' | 'init'
  /**
   * Containers that must be there first: running, or ended with 0 where they are `init`. Secrets of this container are
   * fetched when it is created, so they wait for these, too.
   */
  readonly requires: readonly string[]
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
const REFERENCE =
  /^(?<repository>[a-z0-9.-]+(:[0-9]{1,5})?(\/[a-z0-9._-]+)+)(:[\w][\w.-]{0,127})?@(?<digest>sha256:[0-9a-f]{64})$/

const CONTAINER_KEYS = [
  'name',
  'image',
  'args',
  'env',
  'serviceEnv',
  'user',
  'workingDir',
  'mounts',
  'secrets',
  'identity',
  'readOnlyRoot',
  'terminal',
  'stdin',
  'logs',
  'exec',
  'ports',
  'signals',
  'capabilities',
  'resources',
  'role',
  'requires',
  'max',
] as const

/** One entry of `containers`. Throws `MalformedError` ERR_POLICY_MALFORMED, naming path and line. */
export function readContainerRule(node: PolicyNode): ContainerRule {
  const fields = node.fields(CONTAINER_KEYS)
  const name = matching(
    requiredField(fields, 'name', node),
    NAME,
    'must be a DNS label: lower-case letters, digits, dashes',
  )
  const imageNode = requiredField(fields, 'image', node)
  const reference = REFERENCE.exec(imageNode.string())
  const { repository, digest } = reference?.groups ?? {}
  if (repository === undefined || digest === undefined) {
    throw imageNode.fail(
      'must be host/path@sha256:<64 hex digits>',
      'Pin the digest: `caisson image inspect REF` prints it.',
    )
  }
  return {
    name,
    repository,
    digest,
    args: parseArgs(fields.get('args')),
    env: parseEnvRules(fields.get('env')),
    serviceEnv: fields.get('serviceEnv')?.boolean() ?? false,
    user: fields.get('user')?.string(),
    workingDir: optionalPath(fields.get('workingDir')),
    mounts: listOf(fields.get('mounts'), parseMount),
    secrets: listOf(fields.get('secrets'), parseSecret),
    identity: readIdentityRule(fields.get('identity')),
    readOnlyRoot: fields.get('readOnlyRoot')?.boolean() ?? false,
    terminal: fields.get('terminal')?.boolean() ?? false,
    stdin: fields.get('stdin')?.boolean() ?? false,
    logs: fields.get('logs')?.oneOf(['none', 'allow']) === 'allow',
    exec: listOf(fields.get('exec'), (item) => nonEmpty(item, strings(item))),
    ports: listOf(fields.get('ports'), (item) => item.integer(1, 65535)),
    signals: listOf(fields.get('signals'), (item) => item.integer(1, 64)),
    capabilities: fields.has('capabilities')
      ? listOf(fields.get('capabilities'), (item) =>
          matching(item, /^[A-Z_]{2,32}$/, 'must be a name such as NET_ADMIN'),
        )
      : DEFAULT_CAPABILITIES,
    resources: parseResourceRule(fields.get('resources')),
    role: fields.get('role')?.oneOf(['main', 'init']) ?? 'main',
    requires: listOf(fields.get('requires'), (item) => matching(item, NAME, 'must be the name of a container')),
    max: fields.get('max')?.integer(1, 1024) ?? 1,
  }
}

function parseArgs(node: PolicyNode | undefined): ArgsRule {
  if (node === undefined) return { kind: 'from-image' }
  if (!node.isList()) {
    node.oneOf(['from-image'])
    return { kind: 'from-image' }
  }
  return { kind: 'exact', args: nonEmpty(node, strings(node)) }
}

function parseMount(node: PolicyNode): MountRule {
  const fields = node.fields(['kind', 'path', 'readOnly', 'maxBytes', 'required'])
  return {
    kind: requiredField(fields, 'kind', node).oneOf(['scratch', 'tmpfs']),
    path: absolutePath(requiredField(fields, 'path', node)),
    readOnly: fields.get('readOnly')?.boolean() ?? false,
    maxBytes: fields.get('maxBytes')?.integer(4096, Number.MAX_SAFE_INTEGER),
    required: fields.get('required')?.boolean() ?? true,
  }
}

function parseSecret(node: PolicyNode): SecretRule {
  const fields = node.fields(['resource', 'path', 'mode', 'uid', 'gid'])
  const mode = fields.get('mode')
  return {
    resource: matching(requiredField(fields, 'resource', node), RESOURCE_NAME, 'must be repository/type/tag'),
    path: absolutePath(requiredField(fields, 'path', node)),
    mode:
      mode === undefined
        ? 0o400
        : Number.parseInt(matching(mode, /^0?[0-7]{3}$/, 'must be octal text such as "0400"'), 8),
    uid: fields.get('uid')?.integer(0, 0xfffffffe) ?? 0,
    gid: fields.get('gid')?.integer(0, 0xfffffffe) ?? 0,
  }
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

function matching(node: PolicyNode, pattern: RegExp, problem: string): string {
  const text = node.string()
  if (!pattern.test(text)) throw node.fail(problem)
  return text
}

export function requiredField(fields: Map<string, PolicyNode>, key: string, parent: PolicyNode): PolicyNode {
  const field = fields.get(key)
  if (field === undefined) throw parent.fail(`lacks the key ${key}`)
  return field
}
