/** Text of IP addresses, to bytes. Strict, one way to write each number: what two readers could take for two is none. */

/** 4 or 16 bytes in network order; undefined for text that is no address. IPv6 without the form that ends in IPv4. */
export function ipAddressBytes(text: string): Uint8Array | undefined {
  return text.includes(':') ? ipv6Bytes(text) : ipv4Bytes(text)
}

function ipv4Bytes(text: string): Uint8Array | undefined {
  const parts = text.split('.')
  // No leading zeros: they are octal to some readers.
  const isByte = (part: string): boolean => /^(?:0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255
  return parts.length === 4 && parts.every(isByte) ? Uint8Array.from(parts, Number) : undefined
}

/** RFC 4291 section 2.2. */
function ipv6Bytes(text: string): Uint8Array | undefined {
  if (!/^[0-9a-fA-F:]{2,39}$/.test(text)) return undefined
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
