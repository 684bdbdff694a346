/** What `ip -json` prints (ip(8)), as far as it is used. The kernel's names and addresses end up in command lines. */
import { MalformedError } from '#protocol/errors'

export interface LinkState {
  readonly name: string
  /** Empty for what is no Ethernet. */
  readonly mac: string
  readonly mtu: number
  readonly loopback: boolean
  readonly isUp: boolean
  /** Global addresses with prefix: "10.1.2.3/24". */
  readonly addresses: readonly string[]
}

const NAME = /^[A-Za-z0-9._-]{1,15}$/
const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/
const ADDRESS = /^[0-9a-f.:]{2,45}$/
const NETWORK = /^[0-9a-f.:]{2,45}(?:\/[0-9]{1,3})?$/

/** Answer of `ip -json address show`. @throws MalformedError ERR_IP_OUTPUT */
export function parseLinks(text: string): readonly LinkState[] {
  return listOf(text).map((entry) => {
    const name = textOf(entry, 'ifname', NAME)
    const loopback = entry.link_type === 'loopback'
    // Others have addresses of other forms: kernels with tunnels put some of those into every namespace.
    const mac = entry.link_type === 'ether' ? textOf(entry, 'address', MAC) : ''
    const isUp = Array.isArray(entry.flags) && entry.flags.includes('UP')
    const mtu = entry.mtu
    if (typeof mtu !== 'number' || !Number.isInteger(mtu) || mtu < 0 || mtu > 2 ** 31) throw malformed('mtu')
    const infos = Array.isArray(entry.addr_info) ? entry.addr_info : []
    const addresses = infos.filter(isObject).flatMap((info) => {
      if (info.scope !== 'global') return []
      const prefix = info.prefixlen
      if (typeof prefix !== 'number' || !Number.isInteger(prefix) || prefix < 0 || prefix > 128) {
        throw malformed('prefixlen')
      }
      return [`${textOf(info, 'local', ADDRESS)}/${prefix}`]
    })
    return { name, mac, mtu, loopback, isUp, addresses }
  })
}

export interface LinkRoute {
  /** "10.1.0.0/16"; undefined: the default route. */
  readonly destination: string | undefined
  /** Undefined: on the link itself. */
  readonly gateway: string | undefined
  readonly device: string
}

/**
 * Answer of `ip -json route show`, without what the kernel makes of addresses by itself.
 * @throws MalformedError ERR_IP_OUTPUT
 */
export function parseRoutes(text: string): readonly LinkRoute[] {
  return listOf(text).flatMap((entry) => {
    const isUnicast = entry.type === undefined || entry.type === 'unicast'
    if (entry.protocol === 'kernel' || entry.dev === undefined || !isUnicast) return []
    const destination = entry.dst === 'default' ? undefined : prefixed(textOf(entry, 'dst', NETWORK))
    const gateway = entry.gateway === undefined ? undefined : textOf(entry, 'gateway', ADDRESS)
    return [{ destination, gateway, device: textOf(entry, 'dev', NAME) }]
  })
}

/** A single address is printed without its prefix. */
function prefixed(network: string): string {
  if (network.includes('/')) return network
  return `${network}/${network.includes(':') ? 128 : 32}`
}

export interface KnownNeighbour {
  readonly address: string
  readonly mac: string
}

/** Answer of `ip -json neighbour show nud permanent`. @throws MalformedError ERR_IP_OUTPUT */
export function parseNeighbours(text: string): readonly KnownNeighbour[] {
  return listOf(text).flatMap((entry) =>
    entry.lladdr === undefined ? [] : [{ address: textOf(entry, 'dst', ADDRESS), mac: textOf(entry, 'lladdr', MAC) }],
  )
}

function listOf(text: string): readonly Readonly<Record<string, unknown>>[] {
  let value: unknown
  try {
    value = text.trim() === '' ? [] : JSON.parse(text)
  } catch (cause) {
    throw malformed('the whole', cause)
  }
  // Some versions of ip print an empty object for what a filter leaves out.
  if (!Array.isArray(value) || !value.every(isObject)) throw malformed('the whole')
  return value.filter((entry) => Object.keys(entry).length > 0)
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function textOf(entry: Readonly<Record<string, unknown>>, name: string, form: RegExp): string {
  const value = entry[name]
  if (typeof value !== 'string' || !form.test(value)) throw malformed(name)
  return value
}

function malformed(what: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_IP_OUTPUT', `what ip printed is not understood: ${what}`, {
    hint: 'Install iproute2 5.10 or later',
    ...(cause === undefined ? {} : { cause }),
  })
}
