/** What the policy says of the pod as a whole: kernel settings, shared processes, names in /etc/hosts. */
import { ipAddressBytes } from '#protocol/ip-address'
import type { PolicyNode } from './document.ts'

export interface HostAlias {
  readonly address: string
  readonly names: readonly string[]
}

export interface PodRule {
  /** Containers see each other's processes. */
  readonly shareProcessNamespace: boolean
  /** Kernel setting → value. The guest sets them, whether or not the host asks. */
  readonly sysctls: ReadonlyMap<string, string>
  /** Entries of every container's /etc/hosts. */
  readonly hostAliases: readonly HostAlias[]
}

/** Of the network that the containers of a pod share: set once for the guest. */
export const NETWORK_SYSCTLS: readonly string[] = [
  'net.core.somaxconn',
  'net.ipv4.ip_local_port_range',
  'net.ipv4.ip_local_reserved_ports',
  'net.ipv4.ip_unprivileged_port_start',
  'net.ipv4.ping_group_range',
  'net.ipv4.tcp_fin_timeout',
  'net.ipv4.tcp_keepalive_intvl',
  'net.ipv4.tcp_keepalive_probes',
  'net.ipv4.tcp_keepalive_time',
  'net.ipv4.tcp_rmem',
  'net.ipv4.tcp_syncookies',
  'net.ipv4.tcp_wmem',
]

/** Of a container's own IPC namespace. */
export const IPC_SYSCTLS: readonly string[] = [
  'fs.mqueue.msg_max',
  'fs.mqueue.msgsize_max',
  'fs.mqueue.queues_max',
  'kernel.msgmax',
  'kernel.msgmnb',
  'kernel.msgmni',
  'kernel.sem',
  'kernel.shm_rmid_forced',
  'kernel.shmall',
  'kernel.shmmax',
  'kernel.shmmni',
]

const MAX_ALIASES = 64
/** RFC 1123 section 2.1. */
const HOST_NAME = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/
const SYSCTL_VALUE = /^[0-9]{1,19}(?:[ \t,-][0-9]{1,19}){0,31}$/

export const POD_KEYS = ['shareProcessNamespace', 'sysctls', 'hostAliases'] as const

/** @param fields the policy's own. Throws `MalformedError` ERR_POLICY_MALFORMED */
export function readPodRule(fields: ReadonlyMap<string, PolicyNode>): PodRule {
  const sysctls = fields.get('sysctls')
  return {
    shareProcessNamespace: fields.get('shareProcessNamespace')?.boolean() ?? false,
    sysctls: new Map(sysctls === undefined ? [] : [...sysctls.entries()].map(readSysctl)),
    hostAliases: readAliases(fields.get('hostAliases')),
  }
}

function readSysctl([name, node]: readonly [string, PolicyNode]): readonly [string, string] {
  if (!NETWORK_SYSCTLS.includes(name) && !IPC_SYSCTLS.includes(name)) {
    throw node.fail('is no setting of a pod', `Offered: ${[...NETWORK_SYSCTLS, ...IPC_SYSCTLS].join(', ')}.`)
  }
  const value = node.string()
  if (!SYSCTL_VALUE.test(value)) throw node.fail('must be whole numbers in quotes, such as "1024" or "1024 65535"')
  return [name, value]
}

function readAliases(node: PolicyNode | undefined): readonly HostAlias[] {
  const items = node?.items() ?? []
  if (items.length > MAX_ALIASES) throw items[MAX_ALIASES]?.fail(`is more than ${MAX_ALIASES} entries`)
  return items.map((item) => {
    const fields = item.fields(['address', 'names'])
    const address = fields.get('address')
    const names = fields.get('names')
    if (address === undefined || names === undefined) throw item.fail('needs address and names')
    if (ipAddressBytes(address.string()) === undefined) throw address.fail('must be an IP address')
    return { address: address.string(), names: names.items().map(readName) }
  })
}

function readName(node: PolicyNode): string {
  const name = node.string()
  if (!HOST_NAME.test(name)) throw node.fail('must be a host name')
  return name
}
