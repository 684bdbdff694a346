/**
 * Where a container may connect to, and which name servers the host may give. Both are about the workload: the network
 * itself is the host's, which reads, drops and redirects packets as it likes.
 */
import type { PolicyNode } from './document.ts'
import { type Network, networksHold, parseNetwork } from './network-address.ts'

export interface EgressRule {
  readonly network: Network
  /** As it is written. */
  readonly to: string
  /** TCP and UDP; empty: all. */
  readonly ports: readonly number[]
}

export interface NameServerRule {
  readonly network: Network
  readonly text: string
}

const MAX_RULES = 64
const MAX_PORTS = 64
const MAX_NAME_SERVERS = 16

/** With these a process makes packets without connecting, or takes the limit off. */
const BEYOND_SOCKETS: readonly string[] = ['NET_RAW', 'NET_ADMIN', 'SYS_ADMIN', 'BPF']

/** Undefined: the policy does not say, and the container connects to whom it likes. */
export function readEgress(
  node: PolicyNode | undefined,
  capabilities: readonly string[],
): readonly EgressRule[] | undefined {
  if (node === undefined) return undefined
  const beyond = capabilities.filter((name) => BEYOND_SOCKETS.includes(name))
  if (beyond.length > 0) throw node.fail(`cannot be held to with the capability ${beyond.join(', ')}`)
  return items(node, MAX_RULES).map((item) => {
    if (!item.isMapping()) return { ...networkOf(item), ports: [] }
    const fields = item.fields(['to', 'ports'])
    const [to, ports] = [fields.get('to'), fields.get('ports')]
    if (to === undefined) throw item.fail('lacks the key to')
    const numbers = ports === undefined ? [] : items(ports, MAX_PORTS).map((port) => port.integer(1, 65535))
    if (ports !== undefined && numbers.length === 0)
      throw ports.fail('must not be empty', 'Leave it out for all ports.')
    return { ...networkOf(to), ports: numbers }
  })
}

/** `dns`: networks of the name servers that the host may name. Undefined: any. */
export function readNameServers(node: PolicyNode | undefined): readonly NameServerRule[] | undefined {
  if (node === undefined) return undefined
  return items(node, MAX_NAME_SERVERS).map((item) => {
    const { network, to } = networkOf(item)
    return { network, text: to }
  })
}

/** "10.0.0.0/8, ports 443, 53" */
export function describeEgress({ to, ports }: EgressRule): string {
  return ports.length === 0 ? to : `${to}, ports ${ports.join(', ')}`
}

/** Whether every connection to `place` is one to some place of `egress`; undefined: to whom the container likes. */
export function egressHolds(egress: readonly EgressRule[] | undefined, place: EgressRule): boolean {
  if (egress === undefined) return true
  const holds = (port: number | undefined): boolean => {
    const open = egress.filter(({ ports }) => ports.length === 0 || (port !== undefined && ports.includes(port)))
    return networksHold(
      open.map(({ network }) => network),
      place.network,
    )
  }
  return place.ports.length === 0 ? holds(undefined) : place.ports.every(holds)
}

function networkOf(node: PolicyNode): { readonly network: Network; readonly to: string } {
  const to = node.string()
  const network = parseNetwork(to)
  if (network !== undefined) return { network, to }
  throw node.fail('must be a network such as 10.0.0.0/8, or an address', 'Bits behind the prefix must be zero.')
}

function items(node: PolicyNode, max: number): PolicyNode[] {
  const all = node.items()
  if (all.length > max) throw node.fail(`has ${all.length} entries, at most ${max}`)
  return all
}
