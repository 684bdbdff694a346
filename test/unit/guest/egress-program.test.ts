import test from 'ava'
import fc from 'fast-check'
import { egressPrograms } from '#guest/agent/egress-program'
import type { EgressRule } from '#policies/egress-rule'
import { maskOf, networkHolds, parseNetwork } from '#policies/network-address'
import { refusesOrKeeps } from '../parser-property.ts'

/** What a program answers over a context: the few instructions there are (RFC 9669), read from their encoding. */
function answer(program: Uint8Array, context: Uint8Array): number {
  const code = new DataView(program.buffer, program.byteOffset, program.byteLength)
  const memory = new DataView(context.buffer, context.byteOffset, context.byteLength)
  const registers = new Uint32Array(11)
  for (let at = 0; ; at++) {
    const [op, both] = [code.getUint8(at * 8), code.getUint8(at * 8 + 1)]
    const [to, from] = [both & 15, both >> 4]
    const [offset, value] = [code.getInt16(at * 8 + 2, true), code.getInt32(at * 8 + 4, true)]
    const [target = 0, source = 0] = [registers[to], registers[from]]
    if (offset < 0) throw new Error('it jumps back')
    if (op === 0x61) registers[to] = memory.getUint32(offset, true)
    else if (op === 0xb7) registers[to] = value
    else if (op === 0xbc) registers[to] = source
    else if (op === 0x54) registers[to] = target & value
    else if (op === 0x16) at += target === value >>> 0 ? offset : 0
    else if (op === 0x56) at += target === value >>> 0 ? 0 : offset
    else if (op === 0x05) at += offset
    else if (op === 0x95) return registers[0] ?? -1
    else throw new Error(`instruction ${op}`)
  }
}

/** struct bpf_sock_addr of an address and a port. */
function asked(address: Uint8Array, port: number): Uint8Array {
  const context = new Uint8Array(40)
  context.set(address, address.length === 4 ? 4 : 8)
  new DataView(context.buffer).setUint16(24, port)
  return context
}

const rule = (to: string, ...ports: number[]): EgressRule => {
  const network = parseNetwork(to)
  if (network === undefined) throw new Error(to)
  return { network, to, ports }
}
const bytes = (text: string): Uint8Array => parseNetwork(text)?.address ?? new Uint8Array()
const mapped = (text: string): Uint8Array => Uint8Array.of(...new Uint8Array(10), 0xff, 0xff, ...bytes(text))

const RULES = [rule('10.0.0.0/8', 443, 53), rule('192.0.2.7'), rule('fd00::/8'), rule('2001:db8::5', 80)]
const CASES: readonly [string, number, 0 | 1][] = [
  ['10.1.2.3', 443, 1],
  ['10.255.0.1', 53, 1],
  ['10.1.2.3', 80, 0],
  ['11.0.0.1', 443, 0],
  ['192.0.2.7', 1, 1],
  ['192.0.2.8', 1, 0],
  ['127.8.9.1', 8006, 1],
  ['0.0.0.0', 443, 0],
  ['fd12:3456::1', 9, 1],
  ['fe80::1', 9, 0],
  ['2001:db8::5', 80, 1],
  ['2001:db8::5', 443, 0],
  ['2001:db8::6', 80, 0],
  ['::1', 80, 1],
  ['::', 80, 0],
]
for (const [address, port, verdict] of CASES) {
  test(`egress to ${address} port ${port} is ${verdict === 1 ? 'let through' : 'held back'}`, (t) => {
    const { to4, to6 } = egressPrograms(RULES)
    const four = bytes(address).length === 4
    t.is(answer(four ? to4 : to6, asked(bytes(address), port)), verdict)
    if (four) t.is(answer(to6, asked(mapped(address), port)), verdict, 'from a socket for IPv6')
  })
}

test('only TCP and UDP sockets are made under egress rules', (t) => {
  const { socket } = egressPrograms([])
  const made = (type: number, protocol: number): number => {
    const context = new Uint8Array(16)
    new DataView(context.buffer).setUint32(8, type, true)
    new DataView(context.buffer).setUint32(12, protocol, true)
    return answer(socket, context)
  }
  t.deepEqual([made(1, 6), made(2, 17)], [1, 1])
  // Raw, ping, SCTP, UDP-Lite, multipath TCP.
  for (const [type, protocol] of [
    [3, 6],
    [3, 255],
    [2, 1],
    [1, 132],
    [2, 136],
    [1, 262],
    [2, 6],
    [1, 17],
  ] as const) {
    t.is(made(type, protocol), 0, `${type} ${protocol}`)
  }
})

const ADDRESS = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }),
  fc.uint8Array({ minLength: 16, maxLength: 16 }),
  fc.constantFrom(bytes('10.0.0.1'), bytes('127.0.0.1'), bytes('::1'), mapped('10.0.0.1')),
)
const NETWORK = fc.tuple(ADDRESS, fc.nat(128)).map(([address, bits]) => {
  const prefix = Math.min(bits, address.length * 8)
  const mask = maskOf({ address, prefix })
  return { address: address.map((byte, index) => byte & (mask[index] ?? 0)), prefix }
})

test('whatever the rules, a program lets through exactly the addresses and ports that a rule names', (t) => {
  const rules = fc.array(
    fc.record({ network: NETWORK, ports: fc.array(fc.integer({ min: 1, max: 65535 }), { maxLength: 3 }) }),
    { maxLength: 5 },
  )
  const holds = ({ address, prefix }: EgressRule['network'], other: Uint8Array): boolean => {
    const mask = maskOf({ address, prefix })
    return address.length === other.length && address.every((byte, i) => byte === ((other[i] ?? 0) & (mask[i] ?? 0)))
  }
  t.notThrows(() =>
    fc.assert(
      fc.property(rules, ADDRESS, fc.integer({ min: 1, max: 65535 }), (given, random, anyPort) => {
        const all = given.map((entry) => ({ ...entry, to: '' }))
        const { to4, to6 } = egressPrograms(all)
        const near = given.flatMap(({ network, ports }) => [{ address: network.address, port: ports[0] ?? anyPort }])
        for (const { address, port } of [{ address: random, port: anyPort }, ...near]) {
          const plain = address.length === 16 && holds({ address: mapped('0.0.0.0'), prefix: 96 }, address)
          const meant = plain ? address.slice(12) : address
          const named = all.some(
            ({ network, ports }) =>
              (holds(network, meant) || holds(network, address)) && (ports.length === 0 || ports.includes(port)),
          )
          const local = meant.length === 4 ? meant[0] === 127 : holds({ address: bytes('::1'), prefix: 128 }, meant)
          const found = answer(address.length === 4 ? to4 : to6, asked(address, port))
          if (found !== Number(named || local)) return false
        }
        return true
      }),
      { numRuns: 500 },
    ),
  )
})

test('a network is read in one way, and holds its own address', (t) => {
  const text = fc.oneof(
    fc.string(),
    fc.ipV4(),
    fc.ipV6(),
    fc.tuple(fc.oneof(fc.ipV4(), fc.ipV6()), fc.nat(130)).map(([address, prefix]) => `${address}/${prefix}`),
  )
  refusesOrKeeps(t, text, parseNetwork, (network, input) => {
    return network === undefined || networkHolds(network, input.replace(/\/.*/, ''))
  })
  for (const bad of [
    '10.0.0.1/8',
    '010.0.0.1',
    '1.2.3',
    '1.2.3.256',
    '::1::',
    ':::',
    '1:2:3:4:5:6:7',
    'fd00::/129',
    '',
    '/8',
  ]) {
    t.is(parseNetwork(bad), undefined, bad)
  }
})
