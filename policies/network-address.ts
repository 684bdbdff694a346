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

/** @param text an address, without a prefix */
export function networkHolds(network: Network, text: string): boolean {
  const other = parseNetwork(text)
  if (other === undefined || other.address.length !== network.address.length) return false
  const mask = maskOf(network)
  return network.address.every((byte, index) => byte === ((other.address[index] ?? 0) & (mask[index] ?? 0)))
}
