/**
 * A pod's network namespace, as CNI made it, joined to a VM: a tap device beside the interface, and everything that arrives
 * at one of the two redirected to the other (tc-mirred(8)). The guest takes the interface's MAC and addresses, so nobody
 * outside can tell.
 */
import { execFile } from 'node:child_process'
import { UnavailableError, UsageError } from '#protocol/errors'
import type { TapNetwork } from '#vmm/types'
import { type KnownNeighbour, type LinkState, parseLinks, parseNeighbours, parseRoutes } from './ip-json.ts'

/** What the guest configures. */
export interface GuestInterface {
  mac: string
  /** "10.1.2.3/24" */
  addresses: string[]
  gateways: string[]
  /** Without a gateway: on the link itself. */
  routes: { destination: string; gateway: string }[]
  neighbours: KnownNeighbour[]
  mtu: number
}

const TAP = 'caisson0'
const TIMEOUT_MS = 30_000

/**
 * Makes the tap device and the redirections; what an earlier attempt made is made anew. Undefined when the namespace has
 * no interface but the loopback: a pod without a network.
 * @param namespace path of the network namespace
 * @throws UnavailableError ERR_POD_NETWORK, UsageError ERR_POD_INTERFACES
 */
export async function joinPodNetwork(namespace: string): Promise<TapNetwork | undefined> {
  const link = await podLink(namespace)
  if (link === undefined) return undefined
  await leavePodNetwork(namespace)
  await connect(namespace, link)
  return { tap: TAP, mac: link.mac }
}

/** The interface of a pod, as CNI configured it. @throws what `joinPodNetwork` throws */
export async function describePodNetwork(namespace: string): Promise<GuestInterface | undefined> {
  const link = await podLink(namespace)
  if (link === undefined) return undefined
  const { mac, mtu, name } = link
  const routes = [
    ...parseRoutes(await inNamespace(namespace, ['ip', '-json', '-4', 'route', 'show'])),
    ...parseRoutes(await inNamespace(namespace, ['ip', '-json', '-6', 'route', 'show'])),
  ].filter(({ device }) => device === name)
  const known = await inNamespace(namespace, ['ip', '-json', 'neighbour', 'show', 'dev', name, 'nud', 'permanent'])
  return {
    mac,
    mtu,
    addresses: [...link.addresses],
    gateways: routes.flatMap(({ destination, gateway }) => (destination === undefined && gateway ? [gateway] : [])),
    routes: routes.flatMap(({ destination, gateway = '' }) =>
      destination === undefined ? [] : [{ destination, gateway }],
    ),
    neighbours: [...parseNeighbours(known)],
  }
}

/** What CNI set up; others, down and without an address, are there in every namespace that the kernel makes. */
async function podLink(namespace: string): Promise<LinkState | undefined> {
  const links = parseLinks(await inNamespace(namespace, ['ip', '-json', 'address', 'show']))
  const found = links.filter(
    ({ name, loopback, isUp, addresses }) => !loopback && name !== TAP && (isUp || addresses.length > 0),
  )
  const [link] = found
  // A tap device stands beside an interface that was there: one that is down and lost its addresses looks like none.
  if (link === undefined && !links.some(({ name }) => name === TAP)) return undefined
  if (link !== undefined && found.length === 1 && link.mac !== '' && link.isUp) return link
  const names = found.map(({ name, mac, isUp }) => `${name}${mac === '' ? ' (no Ethernet)' : isUp ? '' : ' (down)'}`)
  const has =
    names.length === 0
      ? 'no interface that is up, although its VM is joined to one'
      : `the interfaces ${names.join(', ')}`
  throw new UsageError('ERR_POD_INTERFACES', `the pod's network has ${has}`, {
    hint: 'A pod of Caisson has one Ethernet interface, which is up: ask for no further networks, as the annotation k8s.v1.cni.cncf.io/networks does, and look at what the CNI plugin left.',
  })
}

/** Removes what `joinPodNetwork` made; a namespace that is gone has nothing left of it. */
export async function leavePodNetwork(namespace: string): Promise<void> {
  const links = await inNamespace(namespace, ['ip', '-json', 'address', 'show']).then(parseLinks, () => [])
  if (!links.some(({ name }) => name === TAP)) return
  const commands = [`link delete ${TAP}`]
  await inNamespace(namespace, ['ip', '-batch', '-'], commands).catch(() => undefined)
  for (const { name, loopback } of links) {
    if (!loopback && name !== TAP) {
      await inNamespace(namespace, ['tc', 'qdisc', 'delete', 'dev', name, 'ingress']).catch(() => undefined)
    }
  }
}

async function connect(namespace: string, link: LinkState): Promise<void> {
  await inNamespace(
    namespace,
    ['ip', '-batch', '-'],
    [`tuntap add dev ${TAP} mode tap vnet_hdr`, `link set dev ${TAP} mtu ${link.mtu} up`],
  )
  const redirect = (from: string, to: string): string[] => [
    `qdisc add dev ${from} ingress`,
    `filter add dev ${from} parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev ${to}`,
  ]
  await inNamespace(namespace, ['tc', '-batch', '-'], [...redirect(link.name, TAP), ...redirect(TAP, link.name)])
}

function inNamespace(namespace: string, command: readonly string[], lines: readonly string[] = []): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      'nsenter',
      [`--net=${namespace}`, '--', ...command],
      { timeout: TIMEOUT_MS, maxBuffer: 1024 * 1024 },
      (error, stdout, stderr) => {
        if (error === null) resolve(stdout)
        else reject(failed(namespace, command, stderr.trim(), error))
      },
    )
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(lines.map((line) => `${line}\n`).join(''))
  })
}

function failed(namespace: string, command: readonly string[], stderr: string, cause: unknown): UnavailableError {
  return new UnavailableError('ERR_POD_NETWORK', `${command.join(' ')} failed in ${namespace}: ${stderr}`, {
    hint: 'The node needs iproute2, /dev/net/tun and the kernel modules tun, sch_ingress, cls_u32 and act_mirred; see caisson node check',
    cause,
  })
}
