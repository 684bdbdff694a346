/**
 * A policy spelt out as what it permits, one sentence each. Where another policy may permit the same in wider words, the
 * sentence says how to tell: by an address range that holds it, a larger size, a list without what takes away.
 */
import type { ContainerRule, SecretSource } from './container-rule.ts'
import { describeEgress, egressHolds } from './egress-rule.ts'
import { describeEnvRule, type EnvRule, envAllows } from './env-rule.ts'
import type { IdentityRule } from './identity-rule.ts'
import { describeSigner, type ImageRule } from './image-rule.ts'
import { type MountRule, maxBytesOf } from './mount-rule.ts'
import { networksHold } from './network-address.ts'
import type { Range } from './resource-rule.ts'
import { describeSeccomp, seccompIncludes } from './seccomp-rule.ts'
import { isContentRule, type VolumeRule } from './volume-rule.ts'
import type { WorkloadPolicy } from './workload.ts'

export interface Permission {
  /** "containers.web.env.MODE: test" */
  readonly text: string
  /** Whether the policy permits it in wider words. Undefined: in these words or not at all. */
  readonly within: ((policy: WorkloadPolicy) => boolean) | undefined
}

type Within<T> = (other: T) => boolean

export function permissionsOf(policy: WorkloadPolicy): readonly Permission[] {
  const image = JSON.stringify(policy.imagePolicy ?? 'the resource that initdata names')
  return [
    { text: `imagePolicy: ${image}`, within: undefined },
    ...[...policy.volumes.values()].map(volumePermission),
    ...policy.containers.flatMap(containerPermissions),
    ...podPermissions(policy),
  ]
}

function podPermissions({ pod, dns }: WorkloadPolicy): Permission[] {
  const exactly = (text: string): Permission => ({ text, within: undefined })
  const servers = dns?.map(
    ({ text, network }): Permission => ({
      text: `dns: ${text}`,
      within: (other) =>
        other.dns === undefined ||
        networksHold(
          other.dns.map((wider) => wider.network),
          network,
        ),
    }),
  )
  return [
    ...(servers ?? [exactly('dns: any name server')]),
    ...(pod.shareProcessNamespace ? [exactly('shareProcessNamespace: containers see each other’s processes')] : []),
    ...[...pod.sysctls].map(([name, value]) => exactly(`sysctls.${name}: ${value}`)),
    ...pod.hostAliases.map(({ address, names }) => exactly(`hostAliases: ${names.join(', ')} at ${address}`)),
  ]
}

function volumePermission(rule: VolumeRule): Permission {
  return {
    text: `volumes.${rule.name}: ${describeVolume(rule)}`,
    within: ({ volumes }) => {
      const other = volumes.get(rule.name)
      return other !== undefined && volumeIncludes(other, rule)
    },
  }
}

/** Of the same kind, for the same owner; more of it, or of what the host may do with it. */
function volumeIncludes(wider: VolumeRule, rule: VolumeRule): boolean {
  if (wider.kind === 'block' || rule.kind === 'block') return wider.kind === rule.kind
  if (wider.kind !== rule.kind || wider.gid !== rule.gid) return false
  if (wider.kind === 'luks') {
    return rule.kind === 'luks' && wider.key === rule.key && (wider.formatEmpty || !rule.formatEmpty)
  }
  if (isContentRule(wider)) {
    if (!isContentRule(rule) || wider.mode !== rule.mode || wider.uid !== rule.uid) return false
    return wider.mutable || (!rule.mutable && (wider.digest === undefined || wider.digest === rule.digest))
  }
  return rule.kind !== 'luks' && !isContentRule(rule) && atLeast(wider.maxBytes, rule.maxBytes)
}

function containerPermissions(rule: ContainerRule): Permission[] {
  const permission = (name: string, text: string, within?: Within<ContainerRule>): Permission => ({
    text: `containers.${rule.name}.${name}: ${text}`,
    within:
      within === undefined
        ? undefined
        : ({ containers }) => containers.some((other) => other.name === rule.name && within(other)),
  })
  const each = (name: string, values: readonly string[]): Permission[] => values.map((value) => permission(name, value))
  const flag = (name: string, value: boolean, text: string): Permission[] => (value ? [permission(name, text)] : [])
  const { memory, cpu, pids } = rule.resources
  return [
    ...each('image', imagePermissions(rule)),
    permission('args', rule.args.kind === 'from-image' ? 'the image’s own' : JSON.stringify(rule.args.args)),
    ...[...rule.env].flatMap(([name, value]) =>
      envParts(value).map(([text, within]) =>
        permission(`env.${name}`, text, ({ env }) => {
          const wider = env.get(name)
          return wider !== undefined && within(wider)
        }),
      ),
    ),
    ...flag('serviceEnv', rule.serviceEnv, 'variables of Kubernetes services'),
    permission('user', rule.user ?? 'the image’s own'),
    permission('workingDir', rule.workingDir ?? 'the image’s own'),
    ...rule.devices.map((device) => {
      const { volume, path, readOnly, uid, gid } = device
      const text = `volume ${volume.name} at ${path}, owner ${uid}:${gid}`
      return permission('devices', `${text}${readOnly ? ', read-only' : ''}`, ({ devices }) =>
        devices.some(
          (other) =>
            other.volume.name === volume.name &&
            other.path === path &&
            other.uid === uid &&
            other.gid === gid &&
            (!other.readOnly || readOnly),
        ),
      )
    }),
    ...each('groups', rule.groups.map(String)),
    ...each('terminationMessage', rule.terminationMessage === undefined ? [] : [rule.terminationMessage]),
    ...rule.mounts.flatMap((mount) => [
      permission('mounts', describeMount(mount), ({ mounts }) => mounts.some((other) => mountIncludes(other, mount))),
      permission('mounts', describeMountSize(mount), ({ mounts }) =>
        mounts.some((other) => isSameMount(other, mount) && atLeast(maxBytesOf(other), maxBytesOf(mount))),
      ),
    ]),
    ...rule.secrets.map(({ source, path, mode, uid, gid }) =>
      permission('secrets', `${exactSource(source)} at ${path}, mode ${mode.toString(8)}, owner ${uid}:${gid}`),
    ),
    ...flag('api', rule.api !== undefined, 'what kind of machine the guest is'),
    ...each('api.resources', rule.api?.resources ?? []),
    ...flag('api.token', rule.api?.token === true, 'the attestation token'),
    ...flag('api.evidence', rule.api?.evidence === true, 'evidence over data of its choice'),
    ...identityPermissions(rule.identity, permission),
    ...flag('readOnlyRoot', !rule.readOnlyRoot, 'writing to the root file system'),
    ...flag('terminal', rule.terminal, 'a terminal'),
    ...flag('stdin', rule.stdin, 'input from the host'),
    ...flag('logs', rule.logs, 'output to the host'),
    ...each(
      'exec',
      rule.exec.map((args) => JSON.stringify(args)),
    ),
    ...each('ports', rule.ports.map(String)),
    ...(rule.egress?.map((place) =>
      permission('egress', describeEgress(place), (other) => egressHolds(other.egress, place)),
    ) ?? [permission('egress', 'anywhere')]),
    ...each('signals', rule.signals.map(String)),
    ...each('capabilities', rule.capabilities),
    permission('seccomp', describeSeccomp(rule.seccomp), (other) => seccompIncludes(other.seccomp, rule.seccomp)),
    permission('resources.memory', describe(memory, ' bytes'), (other) => includes(other.resources.memory, memory)),
    permission('resources.cpu', describe(cpu, 'm'), (other) => includes(other.resources.cpu, cpu)),
    permission('resources.pids', describe(pids, ''), (other) => includes(other.resources.pids, pids)),
    ...conditionPermission(rule, permission),
    permission('requires', rule.requires.length === 0 ? 'nothing' : rule.requires.join(', '), ({ requires }) =>
      requires.every((name) => rule.requires.includes(name)),
    ),
    ...(rule.targetContainer === undefined ? [] : [permission('targetContainer', rule.targetContainer)]),
    permission('role', rule.role),
    permission('max', `${rule.max} at the same time`, (other) => other.max >= rule.max),
  ]
}

type Permit = (name: string, text: string, within?: Within<ContainerRule>) => Permission

/** A condition takes away: without it more is allowed. */
function conditionPermission({ conditions }: ContainerRule, permission: Permit): Permission[] {
  const expressions = conditions.map(({ expression }) => expression).sort()
  return [
    permission('conditions', expressions.join(' and ') || 'none', (other) =>
      other.conditions.every(({ expression }) => expressions.includes(expression)),
    ),
  ]
}

function identityPermissions(rule: IdentityRule | undefined, permission: Permit): Permission[] {
  if (rule === undefined) return []
  const { names, path, uid, gid } = rule
  return [
    permission('identity', `${names.join(', ')}, key at ${path}, owner ${uid}:${gid}`, ({ identity }) => {
      if (identity?.path !== path || identity.uid !== uid || identity.gid !== gid) return false
      return names.every((name) => identity.names.includes(name))
    }),
  ]
}

/** Each value of a list is one, so that a longer list is told by what it adds. */
function envParts(rule: EnvRule): readonly (readonly [text: string, within: Within<EnvRule>])[] {
  if (rule.kind === 'values') {
    return rule.values.map((text) => [text, (wider) => wider.kind !== 'sealed' && envAllows(wider, text)])
  }
  const isFree = (wider: EnvRule) => wider.kind === 'glob' && wider.glob.replaceAll('*', '') === '' && wider.glob !== ''
  const hasValue = rule.kind === 'glob' || rule.kind === 'format'
  return [[describeEnvRule(rule), (wider) => hasValue && isFree(wider)]]
}

function describeMount({ kind, path, readOnly, required, volume, subPath }: MountRule): string {
  const part = subPath === undefined ? '' : `${subPath} of `
  const what = volume === undefined ? kind : `${part}volume ${volume.name}`
  return `${what} at ${path}${readOnly ? ', read-only' : ''}${required ? ', always' : ''}`
}

function describeMountSize({ kind, path, maxBytes }: MountRule): string {
  return `${kind} at ${path} of ${maxBytes === undefined ? 'any size' : `at most ${maxBytes} bytes`}`
}

function isSameMount(a: MountRule, b: MountRule): boolean {
  return a.kind === b.kind && a.path === b.path && a.volume?.name === b.volume?.name && a.subPath === b.subPath
}

/** Writing is more than reading; a mount that the host may leave out is more of its choice than one that is always there. */
function mountIncludes(wider: MountRule, mount: MountRule): boolean {
  return isSameMount(wider, mount) && (!wider.readOnly || mount.readOnly) && (!wider.required || mount.required)
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

function describe(range: Range | undefined, unit: string): string {
  if (range === undefined) return 'any'
  const { min, max } = range
  return `${min === undefined ? 'any' : `from ${min}${unit}`} ${max === undefined ? 'up' : `to ${max}${unit}`}`
}

function includes(wider: Range | undefined, range: Range | undefined): boolean {
  return (wider?.min ?? 0) <= (range?.min ?? 0) && atLeast(wider?.max, range?.max)
}

/** Of most: undefined is no bound. */
function atLeast(wider: number | undefined, most: number | undefined): boolean {
  return (wider ?? Number.POSITIVE_INFINITY) >= (most ?? Number.POSITIVE_INFINITY)
}
