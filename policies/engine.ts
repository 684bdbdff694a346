/**
 * Judges the host's requests against a workload policy. Stateful (cardinality, which container belongs to which rule)
 * and free of side effects outside itself. Every method returns what was admitted or throws `DeniedError` naming the
 * field, what the policy allows and what was asked; the caller decides who may read that.
 */
import { DeniedError } from '#protocol/errors'
import type { ContainerRule, MountRule, WorkloadPolicy } from './workload.ts'

export interface ContainerRequest {
  readonly containerId: string
  /** Rule name; empty: found by the image. */
  readonly name: string
  /** host[:port]/path[:tag][@digest] as the host wrote it. */
  readonly image: string
  /** Undefined: the image's own. */
  readonly args: readonly string[] | undefined
  /** KEY=VALUE */
  readonly env: readonly string[]
  readonly user: string
  readonly workingDir: string
  readonly mounts: readonly {
    readonly kind: string
    readonly destination: string
    readonly readOnly: boolean
    readonly sizeLimitBytes: number
  }[]
  readonly terminal: boolean
  readonly stdin: boolean
}

/** The policy's view of a container that may be created. The host's words appear only where a rule allowed them. */
export interface AdmittedContainer {
  readonly containerId: string
  readonly rule: ContainerRule
  /** repository@digest: what the guest pulls, whatever the host wrote. */
  readonly reference: string
  readonly args: readonly string[] | undefined
  readonly env: readonly string[]
  readonly mounts: readonly MountRule[]
}

export interface ExecRequest {
  readonly containerId: string
  readonly args: readonly string[]
  readonly env: readonly string[]
  readonly user: string
  readonly workingDir: string
  readonly terminal: boolean
  readonly stdin: boolean
}

const SIGKILL = 9
const SIGTERM = 15

export class PolicyEngine {
  readonly #policy: WorkloadPolicy
  readonly #containers = new Map<string, ContainerRule>()

  constructor(policy: WorkloadPolicy) {
    this.#policy = policy
  }

  /** Admits one container and counts it; `release` takes it back when it is gone or could not be created. */
  admitContainer(request: ContainerRequest): AdmittedContainer {
    if (this.#containers.has(request.containerId)) {
      throw denied('container_id', 'an id that is not in use', request.containerId)
    }
    const rule = this.#ruleFor(request)
    this.#checkImage(rule, request.image)
    const existing = [...this.#containers.values()].filter((other) => other === rule).length
    if (existing >= rule.max) {
      throw denied(`containers.${rule.name}.max`, `${rule.max} at the same time`, `container ${existing + 1}`)
    }
    const args = checkArgs(rule, request.args)
    checkEnv(rule, request.env)
    checkEqual(`containers.${rule.name}.user`, rule.user ?? '', request.user, "the image's own user")
    checkEqual(
      `containers.${rule.name}.workingDir`,
      rule.workingDir ?? '',
      request.workingDir,
      "the image's own directory",
    )
    checkFlag(`containers.${rule.name}.terminal`, rule.terminal, request.terminal)
    checkFlag(`containers.${rule.name}.stdin`, rule.stdin, request.stdin)
    const mounts = checkMounts(rule, request)
    this.#containers.set(request.containerId, rule)
    return {
      containerId: request.containerId,
      rule,
      reference: `${rule.repository}@${rule.digest}`,
      args,
      env: request.env,
      mounts,
    }
  }

  /** Forgets a container that is gone, so that its place may be used again. */
  release(containerId: string): void {
    this.#containers.delete(containerId)
  }

  admitExec(request: ExecRequest): void {
    const rule = this.#known(request.containerId)
    const field = `containers.${rule.name}.exec`
    if (!rule.exec.some((args) => sameList(args, request.args))) {
      throw denied(field, listText(rule.exec.map((args) => JSON.stringify(args))), JSON.stringify(request.args))
    }
    if (request.env.length > 0) throw denied(`${field}.env`, 'no added environment', request.env.join(' '))
    checkEqual(`${field}.user`, '', request.user, "the container's own user")
    checkEqual(`${field}.workingDir`, '', request.workingDir, "the container's own directory")
    checkFlag(`${field}.terminal`, rule.terminal, request.terminal)
    checkFlag(`${field}.stdin`, rule.stdin, request.stdin)
  }

  /** Output of the first process or of an admitted exec may leave the guest. */
  admitOutput(containerId: string, isExec: boolean): void {
    const rule = this.#known(containerId)
    // An exec command is admitted word by word, and its output is what it was admitted for.
    if (!rule.logs && !isExec) throw denied(`containers.${rule.name}.logs`, 'none', 'read output')
  }

  admitStdin(containerId: string): void {
    const rule = this.#known(containerId)
    checkFlag(`containers.${rule.name}.stdin`, rule.stdin, true)
  }

  /** @param stopSignal the verified image's own stop signal */
  admitSignal(containerId: string, signal: number, stopSignal: number): void {
    const rule = this.#known(containerId)
    const allowed = [SIGTERM, SIGKILL, stopSignal, ...rule.signals]
    if (!allowed.includes(signal)) {
      throw denied(`containers.${rule.name}.signals`, listText(allowed.map(String)), String(signal))
    }
  }

  /** A port of the sandbox: some existing container's rule must open it. */
  admitPort(port: number): void {
    const open = [...this.#containers.values()].flatMap((rule) => rule.ports)
    if (!open.includes(port)) throw denied('containers.*.ports', listText(open.map(String)), String(port))
  }

  #ruleFor(request: ContainerRequest): ContainerRule {
    const { containers } = this.#policy
    if (request.name !== '') {
      const rule = containers.find((candidate) => candidate.name === request.name)
      if (rule !== undefined) return rule
      throw denied('containers.name', listText(containers.map((candidate) => candidate.name)), request.name)
    }
    const asked = splitReference(request.image)
    const candidates = containers.filter(
      (rule) => rule.repository === asked.repository && (asked.digest === undefined || asked.digest === rule.digest),
    )
    const [rule] = candidates
    if (rule === undefined || candidates.length > 1) {
      const allowed = listText(containers.map((candidate) => `${candidate.repository}@${candidate.digest}`))
      throw denied('containers.image', allowed, request.image)
    }
    return rule
  }

  #checkImage(rule: ContainerRule, image: string): void {
    const asked = splitReference(image)
    const matches = asked.repository === rule.repository && (asked.digest === undefined || asked.digest === rule.digest)
    if (!matches) throw denied(`containers.${rule.name}.image`, `${rule.repository}@${rule.digest}`, image)
  }

  #known(containerId: string): ContainerRule {
    const rule = this.#containers.get(containerId)
    if (rule === undefined) throw denied('container_id', 'a container admitted before', containerId)
    return rule
  }
}

function checkArgs(rule: ContainerRule, asked: readonly string[] | undefined): readonly string[] | undefined {
  const field = `containers.${rule.name}.args`
  if (rule.args.kind === 'from-image') {
    if (asked !== undefined) throw denied(field, "the image's own command", JSON.stringify(asked))
    return undefined
  }
  // An unstated command means the policy's: the host need not know it.
  if (asked !== undefined && !sameList(rule.args.args, asked)) {
    throw denied(field, JSON.stringify(rule.args.args), JSON.stringify(asked))
  }
  return rule.args.args
}

function checkEnv(rule: ContainerRule, env: readonly string[]): void {
  const seen = new Set<string>()
  for (const entry of env) {
    const split = entry.indexOf('=')
    const name = split < 0 ? entry : entry.slice(0, split)
    const values = rule.env.get(name)
    const field = `containers.${rule.name}.env.${name}`
    if (values === undefined || split < 0) throw denied(field, listText([...rule.env.keys()]), entry)
    if (seen.has(name)) throw denied(field, 'once', entry)
    seen.add(name)
    if (!values.includes(entry.slice(split + 1))) throw denied(field, listText(values), entry.slice(split + 1))
  }
}

function checkMounts(rule: ContainerRule, request: ContainerRequest): readonly MountRule[] {
  const asked = new Set<string>()
  for (const mount of request.mounts) {
    const field = `containers.${rule.name}.mounts`
    const match = rule.mounts.find((candidate) => candidate.path === mount.destination && candidate.kind === mount.kind)
    if (match === undefined || asked.has(mount.destination)) {
      const allowed = listText(rule.mounts.map((candidate) => `${candidate.kind}:${candidate.path}`))
      throw denied(field, allowed, `${mount.kind}:${mount.destination}`)
    }
    if (match.readOnly && !mount.readOnly) throw denied(`${field}.readOnly`, 'true', 'false')
    if (match.maxBytes !== undefined && mount.sizeLimitBytes > match.maxBytes) {
      throw denied(`${field}.maxBytes`, String(match.maxBytes), String(mount.sizeLimitBytes))
    }
    asked.add(mount.destination)
  }
  return rule.mounts.filter((mount) => mount.required || asked.has(mount.path))
}

/** An empty request means the rule's value; anything else must equal it. */
function checkEqual(field: string, allowed: string, asked: string, defaultText: string): void {
  if (asked !== '' && asked !== allowed) throw denied(field, allowed === '' ? defaultText : allowed, asked)
}

function checkFlag(field: string, allowed: boolean, asked: boolean): void {
  if (asked && !allowed) throw denied(field, 'false', 'true')
}

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index])
}

function splitReference(image: string): { repository: string; digest: string | undefined } {
  const [name = '', digest] = image.split('@', 2)
  const lastSlash = name.lastIndexOf('/')
  const colon = name.indexOf(':', lastSlash + 1)
  return { repository: colon < 0 ? name : name.slice(0, colon), digest }
}

function listText(values: readonly string[]): string {
  return values.length === 0 ? 'nothing' : values.join(', ')
}

function denied(field: string, allowed: string, asked: string): DeniedError {
  return new DeniedError(
    'ERR_POLICY_DENIED',
    `${field}: the policy allows ${allowed}; asked: ${JSON.stringify(asked)}`,
    {
      field,
      allowed,
      asked,
      hint: `Change ${field} in the policy if this is intended, and register the new initdata digest.`,
    },
  )
}
