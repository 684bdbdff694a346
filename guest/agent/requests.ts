/**
 * Requests of the host, from protobuf messages to bounded values. Form only: whether a request is allowed is the
 * policy's business. Text never holds NUL, which would end it early in a system call.
 */

import type { ContainerRequest, DeviceRequest, ExecRequest } from '#policies/requests'
import type {
  CreateContainerRequest,
  Device as DeviceMessage,
  ExecProcessRequest,
  Mount as MountMessage,
  Resources as ResourcesMessage,
  Route as RouteMessage,
  StartSandboxRequest,
} from '#protocol/gen/agent_pb'
import type { InterfaceConfig } from '../platform/platform.ts'
import { malformedRequest } from './agent-error.ts'
import { parseIpAddress, parseMac, parseNetworkAddress } from './ip-address.ts'
import {
  MAX_ADDRESSES_PER_INTERFACE,
  MAX_ARGS,
  MAX_ARGS_CHARS,
  MAX_DEVICES,
  MAX_ENV,
  MAX_GROUPS,
  MAX_HOST_ENTRIES,
  MAX_INTERFACES,
  MAX_MOUNTS,
  MAX_NAMESERVERS,
  MAX_RESOLVER_OPTIONS,
  MAX_ROUTES_PER_INTERFACE,
  MAX_SEARCHES,
  MAX_SYSCTLS,
} from './limits.ts'

const ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/
/** RFC 1123 section 2.1; 64 is the kernel's limit of a host name. */
const HOSTNAME =
  /^(?=.{1,64}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$/
/** "svc.cluster.local", also with a dot at its end; "." alone is the root. */
const SEARCH = /^(?=.{1,254}$)(?:\.|[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?)$/
const RESOLVER_OPTION = /^[a-z][a-z0-9-]{0,31}(?::[0-9]{1,5})?$/
const MAX_TEXT_CHARS = 4096
const MAX_MTU = 65_535

export interface SandboxRequest {
  readonly hostname: string
  readonly interfaces: readonly InterfaceConfig[]
  /** Canonical text of IP addresses. */
  readonly nameservers: readonly string[]
  readonly hosts: readonly { readonly name: string; readonly address: string }[]
  /** Domains that bare names are looked up in. */
  readonly searches: readonly string[]
  /** Words of resolv.conf(5). */
  readonly resolverOptions: readonly string[]
  readonly sysctls: readonly { readonly name: string; readonly value: string }[]
}

export interface ResourceLimits {
  /** Bytes; 0: none. */
  readonly memoryBytes: number
  readonly cpuQuotaUs: number
  readonly cpuPeriodUs: number
  readonly cpuShares: number
  readonly pids: number
}

/** @throws AgentError ERR_REQUEST_MALFORMED, as all functions here */
export function parseSandboxRequest(message: StartSandboxRequest): SandboxRequest {
  const hostname = message.hostname === '' ? 'caisson' : message.hostname
  if (!HOSTNAME.test(hostname)) throw malformedRequest('hostname', 'is not a host name')
  atMost(message.interfaces, MAX_INTERFACES, 'interfaces')
  atMost(message.nameservers, MAX_NAMESERVERS, 'nameservers')
  atMost(message.hosts, MAX_HOST_ENTRIES, 'hosts')
  atMost(message.searches, MAX_SEARCHES, 'searches')
  atMost(message.resolverOptions, MAX_RESOLVER_OPTIONS, 'resolver_options')
  atMost(message.sysctls, MAX_SYSCTLS, 'sysctls')
  return {
    hostname,
    interfaces: message.interfaces.map((entry, index) => {
      const field = `interfaces[${index}]`
      atMost(entry.addresses, MAX_ADDRESSES_PER_INTERFACE, `${field}.addresses`)
      atMost(entry.gateways, MAX_ADDRESSES_PER_INTERFACE, `${field}.gateways`)
      atMost(entry.routes, MAX_ROUTES_PER_INTERFACE, `${field}.routes`)
      atMost(entry.neighbours, MAX_ROUTES_PER_INTERFACE, `${field}.neighbours`)
      if (entry.mtu > MAX_MTU) throw malformedRequest(`${field}.mtu`, `is ${entry.mtu}, at most ${MAX_MTU}`)
      return {
        mac: parseMac(entry.mac, `${field}.mac`),
        addresses: entry.addresses.map((text) => parseNetworkAddress(text, `${field}.addresses`)),
        gateways: entry.gateways.map((text) => parseIpAddress(text, `${field}.gateways`)),
        routes: entry.routes.map((route) => parseRoute(route, `${field}.routes`)),
        neighbours: entry.neighbours.map(({ address, mac }) => ({
          address: parseIpAddress(address, `${field}.neighbours`),
          mac: parseMac(mac, `${field}.neighbours`),
        })),
        mtu: entry.mtu,
      }
    }),
    nameservers: message.nameservers.map((text) => checkedAddress(text, 'nameservers')),
    hosts: message.hosts.map(({ name, address }) => {
      if (!HOSTNAME.test(name)) throw malformedRequest('hosts.name', 'is not a host name')
      return { name, address: checkedAddress(address, 'hosts.address') }
    }),
    searches: message.searches.map((domain) => matching(domain, SEARCH, 'searches', 'is no domain')),
    resolverOptions: message.resolverOptions.map((word) => {
      return matching(word, RESOLVER_OPTION, 'resolver_options', 'is no option of resolv.conf')
    }),
    sysctls: message.sysctls.map(({ name, value }) => ({
      name: text(name, 'sysctls.name'),
      value: text(value, 'sysctls.value'),
    })),
  }
}

/** The default routes are the gateways' business, and what leads to this machine itself is the kernel's. */
function parseRoute(route: RouteMessage, field: string): InterfaceConfig['routes'][number] {
  const { address: network, prefix } = parseNetworkAddress(route.destination, field)
  if (prefix === 0 || (network.byteLength === 4 && network[0] === 127)) throw malformedRequest(field, 'is no network')
  const gateway = route.gateway === '' ? undefined : parseIpAddress(route.gateway, field)
  if (gateway !== undefined && gateway.byteLength !== network.byteLength) {
    throw malformedRequest(field, 'mixes IPv4 and IPv6')
  }
  return { network, prefix, gateway }
}

function matching(value: string, form: RegExp, field: string, problem: string): string {
  if (!form.test(value)) throw malformedRequest(field, problem)
  return value
}

export function parseContainerRequest(message: CreateContainerRequest): {
  request: ContainerRequest
  resources: ResourceLimits
} {
  atMost(message.mounts, MAX_MOUNTS, 'mounts')
  atMost(message.groups, MAX_GROUPS, 'groups')
  atMost(message.devices, MAX_DEVICES, 'devices')
  const resources = parseResources(message.resources)
  const request = {
    containerId: parseId(message.containerId, 'container_id'),
    name: text(message.name, 'name'),
    image: text(message.image, 'image'),
    args: message.args === undefined ? undefined : parseArgs(message.args.values, 'args'),
    env: parseEnv(message.env),
    user: text(message.user, 'user'),
    workingDir: text(message.workingDir, 'working_dir'),
    mounts: message.mounts.map(parseMount),
    groups: message.groups,
    devices: message.devices.map(parseDevice),
    sharesProcesses: message.sharesProcesses,
    terminal: message.terminal,
    stdin: message.stdin,
    resources,
  }
  return { request, resources }
}

export function parseExecRequest(message: ExecProcessRequest): { execId: string; request: ExecRequest } {
  return {
    execId: parseId(message.execId, 'exec_id'),
    request: {
      containerId: parseId(message.containerId, 'container_id'),
      args: parseArgs(message.args, 'args'),
      env: parseEnv(message.env),
      user: text(message.user, 'user'),
      workingDir: text(message.workingDir, 'working_dir'),
      terminal: message.terminal,
      stdin: message.stdin,
    },
  }
}

export function parseId(id: string, field: string): string {
  if (!ID.test(id)) throw malformedRequest(field, 'is not an id: letters, digits, "_", "." and "-", at most 128')
  return id
}

/** Empty stands for the container's first process. */
export function parseExecId(id: string): string {
  return id === '' ? '' : parseId(id, 'exec_id')
}

export function parseSignal(signal: number): number {
  if (signal < 1 || signal > 64) throw malformedRequest('signal', `is ${signal}, must be 1 to 64`)
  return signal
}

export function parsePort(port: number): number {
  if (port < 1 || port > 65_535) throw malformedRequest('port', `is ${port}, must be 1 to 65535`)
  return port
}

export function parseWindow(columns: number, rows: number): { columns: number; rows: number } {
  if (columns < 1 || columns > 65_535 || rows < 1 || rows > 65_535) {
    throw malformedRequest('columns and rows', `are ${columns} and ${rows}, must be 1 to 65535`)
  }
  return { columns, rows }
}

/** A disk of the host, told apart from the guest's own by its word alone. */
function parseDevice({ path, disk }: DeviceMessage): DeviceRequest {
  if (!/^block-[0-9]{1,2}$/.test(disk)) throw malformedRequest('devices.disk', 'is not "block-" and a number')
  return { path: text(path, 'devices.path'), disk }
}

function parseMount(mount: MountMessage): ContainerRequest['mounts'][number] {
  return {
    kind: text(mount.kind, 'mounts.kind'),
    destination: text(mount.destination, 'mounts.destination'),
    readOnly: mount.readOnly,
    sizeLimitBytes: amount(mount.sizeLimitBytes, 'mounts.size_limit_bytes'),
    volume: text(mount.volume, 'mounts.volume'),
  }
}

/** @throws AgentError ERR_REQUEST_MALFORMED */
export function parseResources(resources: ResourcesMessage | undefined): ResourceLimits {
  return {
    memoryBytes: amount(resources?.memoryLimitBytes ?? 0n, 'resources.memory_limit_bytes'),
    cpuQuotaUs: amount(resources?.cpuQuotaUs ?? 0n, 'resources.cpu_quota_us'),
    cpuPeriodUs: amount(resources?.cpuPeriodUs ?? 0n, 'resources.cpu_period_us'),
    cpuShares: amount(resources?.cpuShares ?? 0n, 'resources.cpu_shares'),
    pids: amount(resources?.pidsLimit ?? 0n, 'resources.pids_limit'),
  }
}

function parseArgs(args: readonly string[], field: string): readonly string[] {
  atMost(args, MAX_ARGS, field)
  if (args.length === 0) throw malformedRequest(field, 'is empty')
  return boundedTexts(args, field)
}

function parseEnv(env: readonly string[]): readonly string[] {
  atMost(env, MAX_ENV, 'env')
  for (const entry of env) if (!/^[^=]+=/.test(entry)) throw malformedRequest('env', 'has an entry without NAME=')
  return boundedTexts(env, 'env')
}

function boundedTexts(values: readonly string[], field: string): readonly string[] {
  const total = values.reduce((sum, value) => sum + value.length, 0)
  if (total > MAX_ARGS_CHARS) throw malformedRequest(field, `has ${total} characters, at most ${MAX_ARGS_CHARS}`)
  if (values.some((value) => value.includes('\0'))) throw malformedRequest(field, 'holds a NUL character')
  return values
}

function checkedAddress(address: string, field: string): string {
  parseIpAddress(address, field)
  return address
}

function text(value: string, field: string): string {
  if (value.length > MAX_TEXT_CHARS) throw malformedRequest(field, `is longer than ${MAX_TEXT_CHARS} characters`)
  if (/[\0\n]/.test(value)) throw malformedRequest(field, 'holds a NUL or newline character')
  return value
}

function amount(value: bigint, field: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw malformedRequest(field, `is ${value}`)
  return Number(value)
}

function atMost(values: readonly unknown[], limit: number, field: string): void {
  if (values.length > limit) throw malformedRequest(field, `has ${values.length} entries, at most ${limit}`)
}
