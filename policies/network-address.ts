/** Networks as policies write them: "10.0.0.0/8", "fd00::/8", or one address. Strict: one way to write each. */
export interface Network {
  /** 4 or 16 bytes; those behind the prefix are zero. */
  readonly address: Uint8Array
  /** Bits. */
  readonly prefix: number
}

/** Undefined for what is no network: bad text, a prefix too long, or bits set behind it. */
export function parseNetwork(text: string): Network | undefined {
  const [, host = '', bits] = /^([0-9a-fA-F:.]{2,39})(?:\/(0|[1-9][0-9]{0,2}))?$/.exec(text) ?? []
  const address = host.includes(':') ? ipv6(host) : ipv4(host)
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

function ipv4(text: string): Uint8Array | undefined {
  const parts = text.split('.')
  const isByte = (part: string): boolean => /^(0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255
  return parts.length === 4 && parts.every(isByte) ? Uint8Array.from(parts, Number) : undefined
}

/** RFC 4291 section 2.2, without the form that ends in IPv4. */
function ipv6(text: string): Uint8Array | undefined {
  const halves = text.split('::')
  if (halves.length > 2) return undefined
  const [head = [], tail = []] = halves.map((half) => (half === '' ? [] : half.split(':')))
  const missing = 8 - head.length - tail.length
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined
  const groups = [...head, ...new Array<string>(missing).fill('0'), ...tail]
  if (!groups.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return undefined
  return Uint8Array.from(
    groups.flatMap((group) => {
      const value = Number.parseInt(group, 16)
      return [value >> 8, value & 0xff]
    }),
  )
}
