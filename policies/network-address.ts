/** Networks as policies write them: "10.0.0.0/8", "fd00::/8", or one address. Strict: one way to write each. */
import { ipAddressBytes } from '#protocol/ip-address'

export interface Network {
  /** 4 or 16 bytes; those behind the prefix are zero. */
  readonly address: Uint8Array
  /** Bits. */
  readonly prefix: number
}

/** Undefined for what is no network: bad text, a prefix too long, or bits set behind it. */
export function parseNetwork(text: string): Network | undefined {
  const [, host = '', bits] = /^([0-9a-fA-F:.]{2,39})(?:\/(0|[1-9][0-9]{0,2}))?$/.exec(text) ?? []
  const address = ipAddressBytes(host)
  if (address === undefined) return undefined
  const prefix = bits === undefined ? address.length * 8 : Number(bits)
  if (prefix > address.length * 8) return undefined
  const network = { address, prefix }
  return maskOf(network).every((mask, index) => ((address[index] ?? 0) & ~mask) === 0) ? network : undefined
}

/** One byte for each of the address. */
export function maskOf({ address, prefix }: Network): Uint8Array {
  return Uint8Array.from(address, (_, index) => {
    const bits = Math.min(Math.max(prefix - index * 8, 0), 8)
    return (0xff << (8 - bits)) & 0xff
  })
}

/** Whether every address of `network` is in one of `wider`. */
export function networksHold(wider: readonly Network[], network: Network): boolean {
  if (wider.some((other) => other.prefix <= network.prefix && sharesPrefix(other, network, other.prefix))) return true
  // Halves may lie in different ones, and do not where none is smaller.
  const parts = wider.filter((other) => other.prefix > network.prefix && sharesPrefix(other, network, network.prefix))
  return parts.length > 0 && halvesOf(network).every((half) => networksHold(parts, half))
}

function halvesOf({ address, prefix }: Network): readonly Network[] {
  const upper = Uint8Array.from(address)
  upper[prefix >> 3] = (upper[prefix >> 3] ?? 0) | (0x80 >> (prefix & 7))
  return [address, upper].map((half) => ({ address: half, prefix: prefix + 1 }))
}

function sharesPrefix(a: Network, b: Network, prefix: number): boolean {
  const mask = maskOf({ address: a.address, prefix })
  return (
    a.address.length === b.address.length &&
    mask.every((bits, index) => ((a.address[index] ?? 0) & bits) === ((b.address[index] ?? 0) & bits))
  )
}

/** @param text an address, without a prefix */
export function networkHolds(network: Network, text: string): boolean {
  const other = parseNetwork(text)
  if (other === undefined || other.address.length !== network.address.length) return false
  const mask = maskOf(network)
  return network.address.every((byte, index) => byte === ((other.address[index] ?? 0) & (mask[index] ?? 0)))
}
