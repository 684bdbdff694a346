/** Addresses and networks as the host writes them. */
import { ipAddressBytes } from '#protocol/ip-address'
import { malformedRequest } from './agent-error.ts'

/** 4 or 16 bytes. @throws AgentError ERR_REQUEST_MALFORMED */
export function parseIpAddress(text: string, field: string): Uint8Array {
  const address = ipAddressBytes(text)
  if (address === undefined) throw malformedRequest(field, `is not an IP address: ${JSON.stringify(text.slice(0, 64))}`)
  return address
}

/** The usual text of 4 bytes, and all eight groups of 16. */
export function ipText(address: Uint8Array): string {
  if (address.byteLength === 4) return address.join('.')
  const groups = Array.from(
    { length: 8 },
    (_, index) => ((address[2 * index] ?? 0) << 8) | (address[2 * index + 1] ?? 0),
  )
  return groups.map((group) => group.toString(16)).join(':')
}

/** "10.0.2.15/24" */
export function parseNetworkAddress(text: string, field: string): { address: Uint8Array; prefix: number } {
  const match = /^([^/]+)\/([0-9]{1,3})$/.exec(text)
  if (match?.[1] === undefined)
    throw malformedRequest(field, `lacks a prefix length: ${JSON.stringify(text.slice(0, 64))}`)
  const address = parseIpAddress(match[1], field)
  const prefix = Number(match[2])
  if (prefix > address.byteLength * 8) throw malformedRequest(field, `has the prefix length ${prefix}`)
  return { address, prefix }
}

/** "52:54:00:12:34:56" */
export function parseMac(text: string, field: string): Uint8Array {
  if (!/^[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}$/.test(text)) {
    throw malformedRequest(field, `is not a MAC address: ${JSON.stringify(text.slice(0, 64))}`)
  }
  return Uint8Array.from(text.split(':'), (part) => Number.parseInt(part, 16))
}
