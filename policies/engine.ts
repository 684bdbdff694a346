/**
 * Judges the host's requests against a workload policy. Stateful (cardinality, which container belongs to which rule)
 * and free of side effects outside itself. Every method returns what was admitted or throws `DeniedError` naming the
 * field, what the policy allows and what was asked; the caller decides who may read that.
 */
import { UsageError } from '#protocol/errors'
import { type ApiRequest, apiProblem } from './api-rule.ts'
import {
  checkArgs,
  checkConditions,
  checkEnv,
  checkEqual,
  checkFlag,
  checkGroups,
  checkMounts,
  checkResources,
  denied,
  listText,
  sameList,
} from './container-checks.ts'
import type { ContainerConditions, JudgedContainer } from './container-conditions.ts'
import type { ContainerRule, MountRule } from './container-rule.ts'
import { type AdmittedDevice, checkDevices } from './device-rule.ts'
import { admittedReference, describeImage, imageAllows, splitReference } from './image-rule.ts'
import { networkHolds } from './network-address.ts'
import type { ContainerRequest, ExecRequest, VolumeRequest } from './requests.ts'
import { type AskedResources, changedResources } from './resource-rule.ts'
import { checkContent, checkVolume } from './volume-checks.ts'
import type { ContentVolumeRule } from './volume-rule.ts'
import type { WorkloadPolicy } from './workload.ts'

/** The policy's view of a container that may be created. The host's words appear only where a rule allowed them. */
export interface AdmittedContainer {
  readonly containerId: string
  readonly rule: ContainerRule
  /**
   * What the guest pulls: repository@digest of the policy, whatever the host wrote; or the resource that holds it; or, where
   * the rule names signers, the version that the host wrote, which one of them must have signed.
   */
  readonly reference: string | { readonly resource: string }
  readonly args: readonly string[] | undefined
  readonly env: readonly string[]
  readonly mounts: readonly MountRule[]
  readonly devices: readonly AdmittedDevice[]
  /** Variable → resource of the verifier that it is set to. */
  readonly envSecrets: ReadonlyMap<string, string>
  /** Variable → sealed secret of the host, and the resource of the key that must have signed it. Not part of `env`. */
  readonly sealedEnv: ReadonlyMap<string, { readonly sealed: string; readonly key: string }>
  /** Whose processes it sees beside its own: all of the pod, or those of the container with this id. */
  readonly processes: 'own' | 'pod' | { readonly containerId: string }
}

interface Existing {
  readonly rule: ContainerRule
  /** As it is now: with the limits that were admitted last. */
  judged: JudgedContainer
  running: boolean
}

const SIGKILL = 9
const SIGTERM = 15

export class PolicyEngine {
  readonly #policy: WorkloadPolicy
  readonly #conditions: ContainerConditions | undefined
  readonly #containers = new Map<string, Existing>()
  /** Rules of `init` containers that have ended with 0. */
  readonly #completed = new Set<string>()

  /**
   * @param conditions of this policy (`loadConditions`)
   * @throws UsageError ERR_POLICY_CONDITIONS when it has conditions and they were not given
   */
  constructor(policy: WorkloadPolicy, conditions?: ContainerConditions) {
    if (conditions === undefined && policy.containers.some((rule) => rule.conditions.length > 0)) {
      throw new UsageError('ERR_POLICY_CONDITIONS', 'the policy has conditions that nobody could judge')
    }
    this.#policy = policy
    this.#conditions = conditions
  }

  /** Some container may use the loopback endpoint. */
  get hasApi(): boolean {
    return this.#policy.containers.some(({ api }) => api !== undefined)
  }

  /** The name servers that containers will ask. */
  admitNameServers(addresses: readonly string[]): void {
    const { dns } = this.#policy
    if (dns === undefined) return
    const other = addresses.find((address) => !dns.some(({ network }) => networkHolds(network, address)))
    if (other !== undefined) throw denied('dns', listText(dns.map(({ text }) => text)), other)
  }

  /** Admits one container and counts it; `release` takes it back when it is gone or could not be created. */
  admitContainer(request: ContainerRequest): AdmittedContainer {
    if (this.#containers.has(request.containerId)) {
      throw denied('container_id', 'an id that is not in use', request.containerId)
    }
    const rule = this.#ruleFor(request)
    this.#checkImage(rule, request.image)
    const existing = [...this.#containers.values()].filter((other) => other.rule === rule).length
    if (existing >= rule.max) {
      throw denied(`containers.${rule.name}.max`, `${rule.max} at the same time`, `container ${existing + 1}`)
    }
    this.#checkRequired(rule)
    this.#checkOnce(rule)
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
    const processes = this.#processesFor(rule, request)
    const mounts = checkMounts(rule, request)
    checkGroups(rule, request.groups ?? [])
    const devices = checkDevices(rule, request.devices ?? [])
    checkResources(rule, request.resources)
    const reference = admittedReference(rule, splitReference(request.image))
    const judged = { rule, request, reference, mounts }
    checkConditions(judged, this.#conditions)
    this.#containers.set(request.containerId, { rule, judged, running: false })
    return {
      containerId: request.containerId,
      rule,
      reference,
      args,
      ...splitEnv(rule, request.env),
      mounts,
      devices,
      processes,
      envSecrets: new Map(
        [...rule.env].flatMap(([name, value]) => (value.kind === 'secret' ? [[name, value.resource] as const] : [])),
      ),
    }
  }

  /** The first process runs: what requires this container may be created. */
  started(containerId: string): void {
    const container = this.#containers.get(containerId)
    if (container !== undefined) container.running = true
  }

  /** The first process ended. */
  ended(containerId: string, exitCode: number): void {
    const container = this.#containers.get(containerId)
    if (container === undefined) return
    container.running = false
    if (container.rule.role === 'init' && exitCode === 0) this.#completed.add(container.rule.name)
  }

  /** Forgets a container that is gone, so that its place may be used again. */
  release(containerId: string): void {
    this.#containers.delete(containerId)
  }

  /** Content may be delivered for this volume; what it is, `admitContent` judges. */
  admitVolume(request: VolumeRequest): ContentVolumeRule {
    return checkVolume(this.#policy.volumes, request)
  }

  /** @param before digest of the content that the volume has; undefined: none yet */
  admitContent(rule: ContentVolumeRule, digest: string, before: string | undefined): void {
    checkContent(rule, digest, before)
  }

  /** A change of limits of a container that is there. @param asked 0 leaves a limit as it is */
  admitLimits(containerId: string, asked: AskedResources): void {
    const container = this.#existing(containerId)
    checkResources(container.rule, asked, 'unchanged')
    const { request, ...rest } = container.judged
    const judged = { ...rest, request: { ...request, resources: changedResources(request.resources, asked) } }
    checkConditions(judged, this.#conditions)
    container.judged = judged
  }

  /** A call of the loopback endpoint by a process of this container. */
  admitApi(containerId: string, request: ApiRequest): void {
    const rule = this.#known(containerId)
    const problem = apiProblem(rule.api, request)
    if (problem !== undefined) throw denied(`containers.${rule.name}.${problem.field}`, problem.allowed, problem.asked)
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
    const open = [...this.#containers.values()].flatMap(({ rule }) => rule.ports)
    if (!open.includes(port)) throw denied('containers.*.ports', listText(open.map(String)), String(port))
  }

  /** Kernel settings that the host asks for; the guest sets the policy's, asked for or not. */
  admitSysctl(name: string, value: string): void {
    const allowed = this.#policy.pod.sysctls.get(name)
    // The kernel takes any white space between numbers.
    if (allowed?.replaceAll('\t', ' ') !== value.replaceAll('\t', ' ')) {
      throw denied(`sysctls.${name}`, allowed ?? 'no change', value)
    }
  }

  #processesFor(rule: ContainerRule, request: ContainerRequest): AdmittedContainer['processes'] {
    const { targetContainer } = rule
    if (targetContainer !== undefined) {
      const target = [...this.#containers].find(
        ([
          ,
          {
            rule: { name },
            running,
          },
        ]) => name === targetContainer && running,
      )
      if (target !== undefined) return { containerId: target[0] }
      throw denied(`containers.${rule.name}.targetContainer`, `it while ${targetContainer} runs`, 'it alone')
    }
    const { shareProcessNamespace } = this.#policy.pod
    checkFlag('shareProcessNamespace', shareProcessNamespace, request.sharesProcesses)
    return shareProcessNamespace ? 'pod' : 'own'
  }

  #ruleFor(request: ContainerRequest): ContainerRule {
    const { containers } = this.#policy
    if (request.name !== '') {
      const rule = containers.find((candidate) => candidate.name === request.name)
      if (rule !== undefined) return rule
      throw denied('containers.name', listText(containers.map((candidate) => candidate.name)), request.name)
    }
    const asked = splitReference(request.image)
    const candidates = containers.filter((rule) => imageAllows(rule, asked))
    const [rule] = candidates
    if (rule === undefined || candidates.length > 1) {
      const allowed = listText(containers.map(describeImage))
      throw denied('containers.image', allowed, request.image)
    }
    return rule
  }

  #checkImage(rule: ContainerRule, image: string): void {
    if (imageAllows(rule, splitReference(image))) return
    throw denied(`containers.${rule.name}.image`, describeImage(rule), image)
  }

  #checkRequired(rule: ContainerRule): void {
    const missing = rule.requires.filter((name) => !this.#isThere(name))
    if (missing.length === 0) return
    throw denied(
      `containers.${rule.name}.requires`,
      `it after ${listText(rule.requires)}`,
      `it before ${listText(missing)} ${missing.length === 1 ? 'is' : 'are'} there`,
    )
  }

  /** What an init container prepared is not prepared again under those that rely on it. One that failed may be repeated. */
  #checkOnce(rule: ContainerRule): void {
    if (!this.#completed.has(rule.name)) return
    throw denied(`containers.${rule.name}.role`, 'an init container until it has ended with 0', 'it again')
  }

  #isThere(name: string): boolean {
    if (this.#completed.has(name)) return true
    return [...this.#containers.values()].some(
      ({ rule, running }) => rule.name === name && rule.role === 'main' && running,
    )
  }

  #known(containerId: string): ContainerRule {
    return this.#existing(containerId).rule
  }

  #existing(containerId: string): Existing {
    const container = this.#containers.get(containerId)
    if (container === undefined) throw denied('container_id', 'a container admitted before', containerId)
    return container
  }
}

/** Sealed secrets apart from the values that are set as they are. */
function splitEnv(rule: ContainerRule, env: readonly string[]): Pick<AdmittedContainer, 'env' | 'sealedEnv'> {
  const sealedEnv = new Map<string, { sealed: string; key: string }>()
  const plain = env.filter((entry) => {
    const name = entry.slice(0, entry.indexOf('='))
    const allowed = rule.env.get(name)
    if (allowed?.kind !== 'sealed') return true
    sealedEnv.set(name, { sealed: entry.slice(name.length + 1), key: allowed.key })
    return false
  })
  return { env: plain, sealedEnv }
}
