/**
 * What a policy's owner should look at again: doors for the host, rules that admit more than they say, and rules that can
 * never be met. Nothing here is an error: each finding may be meant.
 */
import type { ContainerRule } from './container-rule.ts'
import { isContentRule } from './volume-rule.ts'
import type { WorkloadPolicy } from './workload.ts'

export type LintKind = 'open' | 'wide' | 'contradictory' | 'unreachable'

export interface LintFinding {
  readonly kind: LintKind
  /** "containers.web.exec" */
  readonly path: string
  readonly message: string
  readonly remedy: string
}

const SHELL = /(^|\/)(ba|da|z|k|c|tc)?sh$/
/** Capabilities that reach beyond the container, into the guest it runs in. */
const STRONG_CAPABILITIES: readonly string[] = [
  'SYS_ADMIN',
  'SYS_MODULE',
  'SYS_RAWIO',
  'SYS_PTRACE',
  'NET_ADMIN',
  'BPF',
  'SYS_BOOT',
]

/** The runtime starts a program under its filter, and each ends by itself. */
const NEEDED_TO_START: readonly string[] = ['execve', 'exit_group']

export function lintPolicy(policy: WorkloadPolicy): LintFinding[] {
  return [
    ...policy.containers.flatMap(lintContainer),
    ...hostContents(policy),
    ...ambiguousImages(policy),
    ...overheardApi(policy),
  ]
}

function lintContainer(rule: ContainerRule): LintFinding[] {
  const at = (name: string): string => `containers.${rule.name}.${name}`
  return [...openDoors(rule, at), ...wideRules(rule, at), ...contradictions(rule, at), ...unreachable(rule, at)]
}

type Place = (name: string) => string

function openDoors(rule: ContainerRule, at: Place): LintFinding[] {
  const findings: LintFinding[] = []
  const open = (path: string, message: string, remedy: string): void => {
    findings.push({ kind: 'open', path: at(path), message, remedy })
  }
  if (rule.logs) open('logs', 'logs are allowed: the host reads all output of the container', 'Leave out `logs`.')
  if (rule.terminationMessage !== undefined) {
    open('terminationMessage', 'the host reads the end of this file when the container ends', 'Leave it out.')
  }
  if (rule.stdin) open('stdin', 'the host may type into the container', 'Leave out `stdin`.')
  if (rule.terminal) open('terminal', 'the host sees the terminal of the container', 'Leave out `terminal`.')
  for (const args of rule.exec.filter(([program = '']) => SHELL.test(program))) {
    open('exec', `exec ${JSON.stringify(args)} starts a shell for the host`, 'Name the program itself.')
  }
  return findings
}

function wideRules(rule: ContainerRule, at: Place): LintFinding[] {
  const findings: LintFinding[] = []
  const wide = (path: string, message: string, remedy: string): void => {
    findings.push({ kind: 'wide', path: at(path), message, remedy })
  }
  if (rule.signedBy !== undefined) {
    wide('image', 'the host chooses the version: any that was ever signed, also an old one', 'Pin a digest.')
  }
  for (const [name, value] of rule.env) {
    const steers = /^(LD_|PATH$|BASH_ENV$|ENV$|NODE_OPTIONS$|PYTHON|PERL|JAVA_TOOL_OPTIONS$|GCONV_PATH$)/.test(name)
    const free = value.kind === 'glob' && value.glob.replaceAll('*', '') === ''
    if (free) wide(`env.${name}`, 'the host may set it to anything', 'Name the values, or a form.')
    if (steers && (value.kind === 'glob' || value.kind === 'format')) {
      wide(
        `env.${name}`,
        'this variable decides which code runs, and the host chooses its value',
        'Name the one value.',
      )
    }
  }
  for (const name of rule.capabilities.filter((capability) => STRONG_CAPABILITIES.includes(capability))) {
    wide('capabilities', `${name} reaches beyond the container`, 'Leave it out if the program runs without it.')
  }
  for (const signal of rule.signals.filter((number) => number === 19 || number === 11 || number === 6)) {
    wide('signals', `signal ${signal} stops or crashes the program at a moment of the host's choice`, 'Leave it out.')
  }
  return findings
}

function contradictions(rule: ContainerRule, at: Place): LintFinding[] {
  const findings: LintFinding[] = []
  const contradictory = (path: string, message: string, remedy: string): void => {
    findings.push({ kind: 'contradictory', path: at(path), message, remedy })
  }
  const identity = rule.identity === undefined ? [] : [rule.identity]
  const paths = [...rule.mounts, ...rule.secrets, ...identity].map(({ path }) => path)
  for (const twice of new Set(paths.filter((path, index) => paths.indexOf(path) !== index))) {
    contradictory('mounts', `${twice} is mounted twice`, 'Remove one of them.')
  }
  for (const { path } of rule.secrets) {
    const mount = rule.mounts.find((candidate) => path.startsWith(`${candidate.path}/`))
    if (mount?.kind === 'tmpfs')
      contradictory('secrets', `${path} lies under the mount ${mount.path}`, 'Move one of them.')
  }
  if (rule.role === 'init' && rule.max > 1) {
    contradictory('max', 'an init container of which there are several', 'Leave out `max`.')
  }
  return findings
}

function unreachable(rule: ContainerRule, at: Place): LintFinding[] {
  const findings: LintFinding[] = []
  const dead = (path: string, message: string, remedy: string): void => {
    findings.push({ kind: 'unreachable', path: at(path), message, remedy })
  }
  const { cpu, memory } = rule.resources
  const { seccomp } = rule
  const missing = NEEDED_TO_START.filter(
    (name) =>
      (seccomp.kind === 'allow' && !seccomp.names.includes(name)) ||
      (seccomp.kind === 'deny' && seccomp.names.includes(name)),
  ).join(' and ')
  if (missing !== '') dead('seccomp', `without ${missing} no program starts or ends`, `Allow ${missing}.`)
  if (memory?.max !== undefined && memory.max < 4 * 2 ** 20) {
    const message = `at most ${memory.max} bytes of memory: nothing starts in that`
    dead('resources.memory', message, 'Write a unit, such as 512Mi.')
  }
  if (cpu?.max === 0) dead('resources.cpu', 'no CPU time at all is allowed', 'Write an amount, such as 500m.')
  return findings
}

/** What the host puts into volumes, the workload reads as if its owner had written it. */
function hostContents({ volumes }: WorkloadPolicy): LintFinding[] {
  return [...volumes.values()].flatMap((rule): LintFinding[] => {
    if (rule.kind === 'block') {
      const message = 'the host reads and changes what is on this device'
      return [{ kind: 'open', path: `volumes.${rule.name}`, message, remedy: 'Use the kind luks.' }]
    }
    if (!isContentRule(rule) || rule.digest !== undefined) return []
    const message = rule.mutable ? 'the host chooses its content, at any time' : 'the host chooses its content, once'
    const remedy =
      rule.kind === 'secret'
        ? 'Store it at the verifier, and list it under `secrets`.'
        : 'Bind it by a digest, or take nothing from it on trust.'
    return [{ kind: 'wide', path: `volumes.${rule.name}`, message, remedy }]
  })
}

/** A request without a name is judged by its image: where two rules have the same, it is admitted by neither. */
function ambiguousImages({ containers }: WorkloadPolicy): LintFinding[] {
  return containers.flatMap((rule, index): LintFinding[] => {
    if (rule.sealedImage !== undefined) return []
    const other = containers.slice(0, index).find((earlier) => sharesImage(earlier, rule))
    if (other === undefined) return []
    return [
      {
        kind: 'unreachable',
        path: `containers.${rule.name}.image`,
        message: `has the image of ${other.name}: a request that names only the image is admitted by neither`,
        remedy: 'Kubernetes names its containers; for `caisson run` use --name.',
      },
    ]
  })
}

function sharesImage(a: ContainerRule, b: ContainerRule): boolean {
  const anyVersion = a.signedBy !== undefined || b.signedBy !== undefined
  return a.repository === b.repository && (anyVersion || a.digest === b.digest)
}

const API_PORT = 8006

/** What the endpoint gives to one container travels over the loopback interface, which all of them share. */
function overheardApi({ containers }: WorkloadPolicy): LintFinding[] {
  if (containers.every(({ api }) => api === undefined)) return []
  return containers.flatMap(({ name, capabilities, ports }) => [
    ...capabilities
      .filter((capability) => capability === 'NET_RAW' || capability === 'NET_ADMIN' || capability === 'SYS_PTRACE')
      .map((capability) => ({
        kind: 'wide' as const,
        path: `containers.${name}.capabilities`,
        message: `${capability} reads what the endpoint (api) gives to other containers`,
        remedy: 'Leave it out, or give secrets as files.',
      })),
    ...(ports.includes(API_PORT)
      ? [
          {
            kind: 'contradictory' as const,
            path: `containers.${name}.ports`,
            message: `${API_PORT} is the endpoint's own port, which knows no caller from outside`,
            remedy: `Leave out port ${API_PORT}.`,
          },
        ]
      : []),
  ])
}
