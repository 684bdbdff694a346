/**
 * The workload policy: what may run in a sandbox and what may leave it. Parsing only; `engine.ts` judges requests.
 *
 * Whatever is absent is denied: no environment beyond the image's, no mounts, no exec, no logs, no ports. The image is
 * pinned by manifest digest, so a policy names bytes, not a tag.
 */
import { type PolicyNode, parsePolicyDocument } from './document.ts'

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
  /** Variable → allowed values. */
  readonly env: ReadonlyMap<string, readonly string[]>
  /** Undefined: only the image's own user. */
  readonly user: string | undefined
  readonly workingDir: string | undefined
  readonly mounts: readonly MountRule[]
  readonly secrets: readonly SecretRule[]
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
  /** How many containers of this rule may exist at the same time. */
  readonly max: number
}

export interface WorkloadPolicy {
  readonly containers: readonly ContainerRule[]
  /** containers-policy.json as data; absent: fetched from the verifier (initdata's `image_security_policy_uri`). */
  readonly imagePolicy: unknown
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

const MAX_CONTAINERS = 64
const MAX_LIST = 256
const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
const REFERENCE =
  /^(?<repository>[a-z0-9.-]+(:[0-9]{1,5})?(\/[a-z0-9._-]+)+)(:[\w][\w.-]{0,127})?@(?<digest>sha256:[0-9a-f]{64})$/
const RESOURCE = /^[\w-][\w.-]*(\/[\w-][\w.-]*){2}$/
const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_.-]*$/

/** Throws `MalformedError` with the code `ERR_POLICY_MALFORMED`, naming path and line. */
export function parseWorkloadPolicy(text: string): WorkloadPolicy {
  const root = parsePolicyDocument(text)
  const fields = root.fields(['apiVersion', 'kind', 'containers', 'imagePolicy'])
  require_(fields, 'apiVersion', root).oneOf(['caisson/v1'])
  require_(fields, 'kind', root).oneOf(['WorkloadPolicy'])
  const list = require_(fields, 'containers', root)
  const items = bounded(list, MAX_CONTAINERS)
  if (items.length === 0) throw list.fail('is empty', 'A policy without containers admits nothing; name at least one.')
  const containers = items.map(parseContainer)
  const names = new Set<string>()
  containers.forEach((container, index) => {
    if (names.has(container.name))
      throw (items[index] ?? list).fail(`repeats the name ${JSON.stringify(container.name)}`)
    names.add(container.name)
  })
  return { containers, imagePolicy: fields.get('imagePolicy')?.json() }
}

const CONTAINER_KEYS = [
  'name',
  'image',
  'args',
  'env',
  'user',
  'workingDir',
  'mounts',
  'secrets',
  'readOnlyRoot',
  'terminal',
  'stdin',
  'logs',
  'exec',
  'ports',
  'signals',
  'capabilities',
  'max',
] as const

function parseContainer(node: PolicyNode): ContainerRule {
  const fields = node.fields(CONTAINER_KEYS)
  const name = matching(require_(fields, 'name', node), NAME, 'must be a DNS label: lower-case letters, digits, dashes')
  const imageNode = require_(fields, 'image', node)
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
    env: parseEnv(fields.get('env')),
    user: fields.get('user')?.string(),
    workingDir: optionalPath(fields.get('workingDir')),
    mounts: listOf(fields.get('mounts'), parseMount),
    secrets: listOf(fields.get('secrets'), parseSecret),
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

function parseEnv(node: PolicyNode | undefined): ReadonlyMap<string, readonly string[]> {
  const rules = new Map<string, readonly string[]>()
  if (node === undefined) return rules
  for (const [name, value] of node.entries()) {
    if (!ENV_NAME.test(name)) throw value.fail('is not a name of an environment variable')
    rules.set(name, value.isList() ? nonEmpty(value, strings(value)) : [value.string()])
  }
  return rules
}

function parseMount(node: PolicyNode): MountRule {
  const fields = node.fields(['kind', 'path', 'readOnly', 'maxBytes', 'required'])
  return {
    kind: require_(fields, 'kind', node).oneOf(['scratch', 'tmpfs']),
    path: absolutePath(require_(fields, 'path', node)),
    readOnly: fields.get('readOnly')?.boolean() ?? false,
    maxBytes: fields.get('maxBytes')?.integer(4096, Number.MAX_SAFE_INTEGER),
    required: fields.get('required')?.boolean() ?? true,
  }
}

function parseSecret(node: PolicyNode): SecretRule {
  const fields = node.fields(['resource', 'path', 'mode', 'uid', 'gid'])
  const mode = fields.get('mode')
  return {
    resource: matching(require_(fields, 'resource', node), RESOURCE, 'must be repository/type/tag'),
    path: absolutePath(require_(fields, 'path', node)),
    mode:
      mode === undefined
        ? 0o400
        : Number.parseInt(matching(mode, /^0?[0-7]{3}$/, 'must be octal text such as "0400"'), 8),
    uid: fields.get('uid')?.integer(0, 0xfffffffe) ?? 0,
    gid: fields.get('gid')?.integer(0, 0xfffffffe) ?? 0,
  }
}

/** Absolute, normalised, no `..`: it names a place in the container that the guest mounts on. */
function absolutePath(node: PolicyNode): string {
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

function bounded(node: PolicyNode, max: number): PolicyNode[] {
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

function require_(fields: Map<string, PolicyNode>, key: string, parent: PolicyNode): PolicyNode {
  const field = fields.get(key)
  if (field === undefined) throw parent.fail(`lacks the key ${key}`)
  return field
}
