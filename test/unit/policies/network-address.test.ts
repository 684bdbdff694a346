/** Which networks hold which: what is told of a policy's egress and name servers rests on it. */
import test from 'ava'
import fc from 'fast-check'
import { egressHolds } from '#policies/egress-rule'
import { maskOf, type Network, networksHold, parseNetwork } from '#policies/network-address'

function parsed(text: string): Network {
  const network = parseNetwork(text)
  if (network === undefined) throw new Error(`no network: ${text}`)
  return network
}

const NETWORK: fc.Arbitrary<Network> = fc
  .tuple(fc.constantFrom(4, 16), fc.nat(12), fc.nat(15))
  .map(([length, prefix, bits]) => {
    // Few different ones, so that many meet.
    const address = new Uint8Array(length)
    address[0] = bits << 4
    const mask = maskOf({ address, prefix })
    return { address: address.map((byte, index) => byte & (mask[index] ?? 0)), prefix }
  })

test('networks hold another one exactly when they hold each of its addresses', (t) => {
  const seen = { held: 0, not: 0, together: 0 }
  fc.assert(
    fc.property(fc.array(NETWORK, { maxLength: 6 }), NETWORK, (wider, network) => {
      // Prefixes end within 12 bits: sixteen bits of an address are all that tell them apart.
      const { length } = network.address
      const mask = maskOf(network)
      const addresses = Array.from({ length: 2 ** 12 }, (_, bits) => {
        const address = new Uint8Array(length)
        address[0] = bits >> 4
        address[1] = (bits & 15) << 4
        return address
      }).filter((address) => holds(network, address, mask))
      const masks = wider.map((other) => maskOf(other))
      const all = addresses.every((address) =>
        wider.some((other, index) => holds(other, address, masks[index] ?? new Uint8Array())),
      )
      const said = networksHold(wider, network)
      if (said) seen.held++
      else seen.not++
      if (said && !wider.some((other) => networksHold([other], network))) seen.together++
      return said === all
    }),
    { numRuns: 400 },
  )
  t.true(seen.held > 20 && seen.not > 20, JSON.stringify(seen))
  const [low, high, whole] = [parsed('10.0.0.0/9'), parsed('10.128.0.0/9'), parsed('10.0.0.0/8')]
  t.true(networksHold([low, high], whole))
  t.false(networksHold([low, parsed('10.128.0.0/10')], whole))
})

function holds(network: Network, address: Uint8Array, mask: Uint8Array): boolean {
  if (network.address.length !== address.length) return false
  return address.every((byte, index) => (byte & (mask[index] ?? 0)) === network.address[index])
}

test('egress holds a place when each of its ports is open to all of its network', (t) => {
  const place = (to: string, ...ports: number[]) => ({ to, network: parsed(to), ports })
  const open = [place('10.0.0.0/8', 443), place('10.0.0.0/9'), place('fd00::/8', 53, 443)]
  t.true(egressHolds(undefined, place('0.0.0.0/0')))
  t.true(egressHolds(open, place('10.1.0.0/16', 22, 443)))
  t.true(egressHolds(open, place('10.200.0.0/16', 443)))
  t.true(egressHolds(open, place('10.1.0.0/16')))
  for (const more of [
    place('10.200.0.0/16', 443, 22),
    place('10.200.0.0/16'),
    place('fd00::/8'),
    place('11.0.0.0/8', 443),
  ]) {
    t.false(egressHolds(open, more), more.to)
  }
  t.false(egressHolds([], place('10.0.0.1')))
})
