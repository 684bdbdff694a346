/**
 * What the host may set an environment variable to. Matching is linear in the length of the value, because the value is
 * the host's: there are wildcards and named forms, no regular expressions.
 */
import { ipAddressBytes } from '#protocol/ip-address'
import { MAX_SEALED_SECRET_CHARS, SEALED_SECRET_PREFIX } from '#protocol/sealed-secret'
import type { PolicyNode } from './document.ts'

export type EnvRule =
  | { readonly kind: 'values'; readonly values: readonly string[] }
  /** `*` stands for any characters, also none. */
  | { readonly kind: 'glob'; readonly glob: string }
  | { readonly kind: 'format'; readonly format: EnvFormat }
  /** Set in the guest from a resource of the verifier; whatever the host sends is denied. */
  | { readonly kind: 'secret'; readonly resource: string }
  /** The host sets a sealed secret, which the guest unseals. `key`: resource of the public key that must have signed it. */
  | { readonly kind: 'sealed'; readonly key: string }

/** Forms of values that only the cluster knows, as Kubernetes' downward API and service links give them. */
export const ENV_FORMATS = ['ip', 'port', 'dns-name', 'uid', 'integer'] as const
export type EnvFormat = (typeof ENV_FORMATS)[number]

export const RESOURCE_NAME: RegExp = /^[\w-][\w.-]*(\/[\w-][\w.-]*){2}$/

const MAX_VALUES = 256
const MAX_GLOB = 1024
const MAX_WILDCARDS = 16
const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_.-]*$/

/** Each pattern is a fixed sequence of character classes: none can backtrack. */
const FORMATS: Readonly<Record<EnvFormat, (value: string) => boolean>> = {
  ip: (value) => ipAddressBytes(value) !== undefined,
  port: (value) => /^\d{1,5}$/.test(value) && Number(value) >= 1 && Number(value) <= 65535,
  'dns-name': (value) =>
    value.length <= 253 && value.split('.').every((label) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(label)),
  uid: (value) => /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/.test(value),
  integer: (value) => /^-?\d{1,18}$/.test(value),
}

/** The variables that Kubernetes sets for each service of a namespace, and the form of their values. */
const SERVICE_VARIABLES: readonly (readonly [RegExp, (value: string) => boolean])[] = [
  [/^[A-Z][A-Z0-9_]*_SERVICE_HOST$/, FORMATS.ip],
  [/^[A-Z][A-Z0-9_]*_SERVICE_PORT(_[A-Z0-9_]+)?$/, FORMATS.port],
  [/^[A-Z][A-Z0-9_]*_PORT(_\d{1,5}_(TCP|UDP|SCTP))?$/, isServiceUrl],
  [/^[A-Z][A-Z0-9_]*_PORT_\d{1,5}_(TCP|UDP|SCTP)_PROTO$/, (value) => /^(tcp|udp|sctp)$/.test(value)],
  [/^[A-Z][A-Z0-9_]*_PORT_\d{1,5}_(TCP|UDP|SCTP)_PORT$/, FORMATS.port],
  [/^[A-Z][A-Z0-9_]*_PORT_\d{1,5}_(TCP|UDP|SCTP)_ADDR$/, FORMATS.ip],
]

/** `env` of a container: variable → value, list of values, or one of `{ glob }`, `{ format }`, `{ secret }`, `{ sealed }`. */
export function parseEnvRules(node: PolicyNode | undefined): ReadonlyMap<string, EnvRule> {
  const rules = new Map<string, EnvRule>()
  if (node === undefined) return rules
  for (const [name, value] of node.entries()) {
    if (!ENV_NAME.test(name)) throw value.fail('is not a name of an environment variable')
    rules.set(name, parseEnvRule(value))
  }
  return rules
}

function parseEnvRule(node: PolicyNode): EnvRule {
  if (node.isList()) {
    const items = node.items()
    if (items.length === 0 || items.length > MAX_VALUES) throw node.fail(`must have 1 to ${MAX_VALUES} values`)
    return { kind: 'values', values: items.map((item) => item.string()) }
  }
  if (!node.isMapping()) return { kind: 'values', values: [node.string()] }
  const [[key, value] = [], ...more] = node.fields(['glob', 'format', 'secret', 'sealed'])
  if (key === undefined || value === undefined || more.length > 0) {
    throw node.fail(
      'must have one key',
      'Write a value, a list of values, { glob: … }, { format: … }, { secret: … } or { sealed: … }.',
    )
  }
  if (key === 'format') return { kind: 'format', format: value.oneOf(ENV_FORMATS) }
  const text = value.string()
  if (key === 'secret' || key === 'sealed') {
    if (!RESOURCE_NAME.test(text)) throw value.fail('must be repository/type/tag')
    return key === 'secret' ? { kind: 'secret', resource: text } : { kind: 'sealed', key: text }
  }
  if (text.length > MAX_GLOB || text.split('*').length - 1 > MAX_WILDCARDS) {
    throw value.fail(`must have at most ${MAX_GLOB} characters and ${MAX_WILDCARDS} wildcards`)
  }
  return { kind: 'glob', glob: text }
}

export function envAllows(rule: EnvRule, value: string): boolean {
  switch (rule.kind) {
    case 'values':
      return rule.values.includes(value)
    case 'glob':
      return globMatches(rule.glob, value)
    case 'format':
      return FORMATS[rule.format](value)
    case 'secret':
      return false
    case 'sealed':
      return value.startsWith(SEALED_SECRET_PREFIX) && value.length <= MAX_SEALED_SECRET_CHARS
  }
}

/** What a denial tells the tenant. */
export function describeEnvRule(rule: EnvRule): string {
  switch (rule.kind) {
    case 'values':
      return rule.values.join(', ')
    case 'glob':
      return `values like ${rule.glob}`
    case 'format':
      return `any value of the form "${rule.format}"`
    case 'secret':
      return `only the secret ${rule.resource}, which the guest fetches itself`
    case 'sealed':
      return `only a sealed secret signed with the key ${rule.key}`
  }
}

/** Whether `name=value` is one of the variables that Kubernetes sets for services, in its form. */
export function isServiceVariable(name: string, value: string): boolean {
  return SERVICE_VARIABLES.some(([pattern, form]) => pattern.test(name) && form(value))
}

/** Greedy from the left, which finds a match of a pattern with only `*` whenever there is one. Called for each variable. */
function globMatches(glob: string, value: string): boolean {
  let star = glob.indexOf('*')
  if (star < 0) return value === glob
  const last = glob.slice(glob.lastIndexOf('*') + 1)
  if (value.length < star + last.length || !value.startsWith(glob.slice(0, star)) || !value.endsWith(last)) return false
  const end = value.length - last.length
  let from = star
  for (let next = glob.indexOf('*', star + 1); next >= 0; next = glob.indexOf('*', star + 1)) {
    const part = glob.slice(star + 1, next)
    const at = value.indexOf(part, from)
    if (at < 0 || at + part.length > end) return false
    from = at + part.length
    star = next
  }
  return true
}

/** "tcp://10.0.0.1:443", IPv6 in brackets. */
function isServiceUrl(value: string): boolean {
  const match = /^(?:tcp|udp|sctp):\/\/(\[[0-9a-fA-F:]{2,39}\]|[0-9.]{7,15}):(\d{1,5})$/.exec(value)
  const [, host = '', port = ''] = match ?? []
  return FORMATS.ip(host.replace(/^\[|\]$/g, '')) && FORMATS.port(port)
}
