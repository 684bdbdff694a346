/**
 * What a change of policy newly allows, and what it newly denies. Each policy is spelt out as its permissions; what one
 * has and the other has not is the difference, whatever the text looks like.
 */
import type { ContainerRule, SecretSource } from './container-rule.ts'
import { describeEgress } from './egress-rule.ts'
import { describeEnvRule, envAllows } from './env-rule.ts'
import type { IdentityRule } from './identity-rule.ts'
import { describeSigner, type ImageRule } from './image-rule.ts'
import type { Range } from './resource-rule.ts'
import { describeSeccomp, seccompIncludes } from './seccomp-rule.ts'
import { isContentRule, type VolumeRule } from './volume-rule.ts'
import type { WorkloadPolicy } from './workload.ts'

export interface PolicyDifference {
  /** "containers.web.env.MODE: test" */
  readonly allowed: readonly string[]
  readonly denied: readonly string[]
}

export function diffPolicies(before: WorkloadPolicy, after: WorkloadPolicy): PolicyDifference {
  return { allowed: beyond(before, after), denied: beyond(after, before) }
}

/** What the second permits and the first does not, in any words. */
function beyond(first: WorkloadPolicy, second: WorkloadPolicy): string[] {
  const held = permissionsOf(first)
  const covered = new Set(
    second.containers.flatMap((rule) => {
      const other = first.containers.find(({ name }) => name === rule.name)
      return other === undefined ? [] : [...coverable(rule)].flatMap(([text, by]) => (by(other) ? [text] : []))
    }),
  )
  return [...permissionsOf(second)].filter((permission) => !held.has(permission) && !covered.has(permission)).sort()
}

/** Permissions that a wider one of another rule includes. */
function coverable(rule: ContainerRule): Map<string, (other: ContainerRule) => boolean> {
  const at = (name: string, text: string): string => `containers.${rule.name}.${name}: ${text}`
  const { memory, cpu, pids } = rule.resources
  return new Map([
    [at('resources.memory', describe(memory, ' bytes')), (other) => includes(other.resources.memory, memory)],
    [at('resources.cpu', describe(cpu, 'm')), (other) => includes(other.resources.cpu, cpu)],
    [at('resources.pids', describe(pids, '')), (other) => includes(other.resources.pids, pids)],
    [at('max', `${rule.max} at the same time`), (other) => other.max >= rule.max],
    [at('seccomp', describeSeccomp(rule.seccomp)), (other) => seccompIncludes(other.seccomp, rule.seccomp)],
    ...[...rule.env].flatMap(([name, value]) =>
      (value.kind === 'values' ? value.values : []).map((text): [string, (other: ContainerRule) => boolean] => [
        at(`env.${name}`, text),
        (other) => {
          const wider = other.env.get(name)
          return wider !== undefined && wider.kind !== 'sealed' && envAllows(wider, text)
        },
      ]),
    ),
    ...(rule.egress ?? []).map((place): [string, (other: ContainerRule) => boolean] => [
      at('egress', describeEgress(place)),
      (other) => other.egress === undefined,
    ]),
  ])
}

function includes(wider: Range | undefined, range: Range | undefined): boolean {
  const [from, to] = [wider?.min ?? 0, wider?.max ?? Number.POSITIVE_INFINITY]
  return from <= (range?.min ?? 0) && to >= (range?.max ?? Number.POSITIVE_INFINITY)
}

function permissionsOf(policy: WorkloadPolicy): ReadonlySet<string> {
  const image = JSON.stringify(policy.imagePolicy ?? 'the resource that initdata names')
  const volumes = [...policy.volumes.values()].map((rule) => `volumes.${rule.name}: ${describeVolume(rule)}`)
  return new Set([
    `imagePolicy: ${image}`,
    ...volumes,
    ...policy.containers.flatMap(containerPermissions),
    ...podPermissions(policy),
  ])
}

function podPermissions({ pod, dns }: WorkloadPolicy): string[] {
  return [
    ...(dns?.map(({ text }) => text) ?? ['any name server']).map((text) => `dns: ${text}`),
    ...(pod.shareProcessNamespace ? ['shareProcessNamespace: containers see each other’s processes'] : []),
    ...[...pod.sysctls].map(([name, value]) => `sysctls.${name}: ${value}`),
    ...pod.hostAliases.map(({ address, names }) => `hostAliases: ${names.join(', ')} at ${address}`),
  ]
}

function containerPermissions(rule: ContainerRule): string[] {
  const permission = (name: string, text: string): string => `containers.${rule.name}.${name}: ${text}`
  const each = (name: string, values: readonly string[]): string[] => values.map((value) => permission(name, value))
  const flag = (name: string, value: boolean, text: string): string[] => (value ? [permission(name, text)] : [])
  return [
    ...each('image', imagePermissions(rule)),
    permission('args', rule.args.kind === 'from-image' ? 'the image’s own' : JSON.stringify(rule.args.args)),
    ...[...rule.env].flatMap(([name, value]) =>
      value.kind === 'values' ? each(`env.${name}`, value.values) : [permission(`env.${name}`, describeEnvRule(value))],
    ),
    ...flag('serviceEnv', rule.serviceEnv, 'variables of Kubernetes services'),
    permission('user', rule.user ?? 'the image’s own'),
    permission('workingDir', rule.workingDir ?? 'the image’s own'),
    ...each(
      'devices',
      rule.devices.map(({ volume, path, readOnly, uid, gid }) => {
        return `volume ${volume.name} at ${path}, owner ${uid}:${gid}${readOnly ? ', read-only' : ''}`
      }),
    ),
    ...each('groups', rule.groups.map(String)),
    ...each('terminationMessage', rule.terminationMessage === undefined ? [] : [rule.terminationMessage]),
    ...rule.mounts.flatMap(({ kind, path, readOnly, maxBytes, required, volume, subPath }) => [
      permission(
        'mounts',
        `${volume === undefined ? kind : `${subPath === undefined ? '' : `${subPath} of `}volume ${volume.name}`} at ${path}${readOnly ? ', read-only' : ''}${required ? ', always' : ''}`,
      ),
      permission(
        'mounts',
        `${kind} at ${path} of ${maxBytes === undefined ? 'any size' : `at most ${maxBytes} bytes`}`,
      ),
    ]),
    ...rule.secrets.map(({ source, path, mode, uid, gid }) =>
      permission('secrets', `${exactSource(source)} at ${path}, mode ${mode.toString(8)}, owner ${uid}:${gid}`),
    ),
    ...flag('api', rule.api !== undefined, 'what kind of machine the guest is'),
    ...each('api.resources', rule.api?.resources ?? []),
    ...flag('api.token', rule.api?.token === true, 'the attestation token'),
    ...flag('api.evidence', rule.api?.evidence === true, 'evidence over data of its choice'),
    ...(rule.identity === undefined ? [] : [permission('identity', describeIdentity(rule.identity))]),
    ...flag('readOnlyRoot', !rule.readOnlyRoot, 'writing to the root file system'),
    ...flag('terminal', rule.terminal, 'a terminal'),
    ...flag('stdin', rule.stdin, 'input from the host'),
    ...flag('logs', rule.logs, 'output to the host'),
    ...each(
      'exec',
      rule.exec.map((args) => JSON.stringify(args)),
    ),
    ...each('ports', rule.ports.map(String)),
    ...each('egress', rule.egress?.map(describeEgress) ?? ['anywhere']),
    ...each('signals', rule.signals.map(String)),
    ...each('capabilities', rule.capabilities),
    permission('seccomp', describeSeccomp(rule.seccomp)),
    permission('resources.memory', describe(rule.resources.memory, ' bytes')),
    permission('resources.cpu', describe(rule.resources.cpu, 'm')),
    permission('resources.pids', describe(rule.resources.pids, '')),
    // A condition takes away: without it more is allowed.
    permission(
      'conditions',
      rule.conditions
        .map(({ expression }) => expression)
        .sort()
        .join(' and ') || 'none',
    ),
    permission('requires', rule.requires.length === 0 ? 'nothing' : rule.requires.join(', ')),
    ...(rule.targetContainer === undefined ? [] : [permission('targetContainer', rule.targetContainer)]),
    permission('role', rule.role),
    permission('max', `${rule.max} at the same time`),
  ]
}

/** Any one signer will do, so each permits something of its own. */
function imagePermissions({ repository, digest, sealedImage, signedBy }: ImageRule): readonly string[] {
  if (sealedImage !== undefined) return [`as ${sealedImage} says`]
  return signedBy?.map((signer) => `${repository} signed by ${describeSigner(signer)}`) ?? [`${repository}@${digest}`]
}

function describeVolume(rule: VolumeRule): string {
  if (rule.kind === 'block') return 'a block device of the host'
  if (rule.kind === 'luks') {
    const format = rule.formatEmpty ? ', formatted when empty' : ''
    return `encrypted with ${rule.key}${format}${rule.gid === undefined ? '' : `, group ${rule.gid}`}`
  }
  if (!isContentRule(rule)) {
    const size = rule.maxBytes === undefined ? 'any size' : `at most ${rule.maxBytes} bytes`
    return `${rule.kind} of ${size}${rule.gid === undefined ? '' : `, group ${rule.gid}`}`
  }
  const content = rule.mutable ? 'of changing content' : (rule.digest ?? 'of any content, once')
  return `${rule.kind} ${content}, mode ${rule.mode.toString(8)}, owner ${rule.uid}:${rule.gid}`
}

export function describeSource(source: SecretSource): string {
  return source.kind === 'resource' ? source.resource : `a sealed secret, signed with ${source.key},`
}

/** Which of all that the key has signed. */
function exactSource(source: SecretSource): string {
  return source.kind === 'resource' ? source.resource : `${source.sealed}, signed with ${source.key},`
}

function describeIdentity({ names, path, uid, gid }: IdentityRule): string {
  return `${names.join(', ')}, key at ${path}, owner ${uid}:${gid}`
}

function describe(range: Range | undefined, unit: string): string {
  if (range === undefined) return 'any'
  const { min, max } = range
  return `${min === undefined ? 'any' : `from ${min}${unit}`} ${max === undefined ? 'up' : `to ${max}${unit}`}`
}
