/**
 * The egress rules of a container as programs for the kernel's virtual machine (Documentation/bpf, RFC 9669), which the
 * kernel runs when a process of the container's control group makes a socket, connects it, or sends a datagram without.
 * They are straight: comparisons that jump forwards, then "no". What answers callers from outside is not asked.
 */
import type { EgressRule } from '#policies/egress-rule'
import { maskOf, type Network } from '#policies/network-address'
import type { SocketPrograms } from '../platform/platform.ts'

/** Offsets in struct bpf_sock_addr and struct bpf_sock (linux/bpf.h). Addresses and ports are in network byte order. */
const USER_IP4 = 4
const USER_IP6 = 8
const USER_PORT = 24
const SOCK_TYPE = 8
const SOCK_PROTOCOL = 12

const LOAD_WORD = 0x61
const MOVE_CONSTANT_64 = 0xb7
const MOVE_32 = 0xbc
const AND_CONSTANT_32 = 0x54
const JUMP_EQUAL_32 = 0x16
const JUMP_NOT_EQUAL_32 = 0x56
const EXIT = 0x95

const RESULT = 0
const CONTEXT = 1
/** Four words of an address, the port, and a word to work on. None is one that a call would change: there is none. */
const WORDS = [2, 3, 4, 5] as const
const PORT = 6
const SCRATCH = 7

const SOCK_STREAM = 1
const SOCK_DGRAM = 2
const IPPROTO_TCP = 6
const IPPROTO_UDP = 17

/** Containers of a pod meet there, and so does the guest's endpoint. */
const LOOPBACK: readonly Network[] = [
  { address: Uint8Array.of(127, 0, 0, 0), prefix: 8 },
  { address: Uint8Array.from({ length: 16 }, (_, index) => (index === 15 ? 1 : 0)), prefix: 128 },
]

interface Instruction {
  readonly code: number
  readonly to?: number
  readonly from?: number
  readonly offset?: number
  readonly value?: number
}

/** `to4` and `to6` for connect(2) and sendmsg(2); `socket` lets TCP and UDP pass alone, which the others see all of. */
export function egressPrograms(rules: readonly EgressRule[]): SocketPrograms {
  const all = [...LOOPBACK.map((network) => ({ network, ports: [] as readonly number[] })), ...rules]
  const four = all.filter(({ network }) => network.address.length === 4)
  // A socket for IPv6 reaches IPv4 by mapped addresses (RFC 4291 section 2.5.5.2), and is asked here alone.
  const six = all.map(({ network, ports }) => ({ network: mapped(network), ports }))
  return {
    to4: addressProgram(four, [USER_IP4]),
    to6: addressProgram(six, [USER_IP6, USER_IP6 + 4, USER_IP6 + 8, USER_IP6 + 12]),
    socket: socketProgram(),
  }
}

function mapped(network: Network): Network {
  if (network.address.length === 16) return network
  const address = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...network.address)
  return { address, prefix: network.prefix + 96 }
}

function addressProgram(
  rules: readonly { readonly network: Network; readonly ports: readonly number[] }[],
  words: readonly number[],
): Uint8Array {
  const load = (to: number, offset: number): Instruction => ({ code: LOAD_WORD, to, from: CONTEXT, offset })
  return encode([
    ...words.map((offset, index) => load(WORDS[index] ?? SCRATCH, offset)),
    load(PORT, USER_PORT),
    ...rules.flatMap(({ network, ports }) => rule(network, ports)),
    ...answer(0),
  ])
}

/** Falls through to the next rule where it does not match. */
function rule(network: Network, ports: readonly number[]): Instruction[] {
  const mask = maskOf(network)
  const decision: Instruction[] =
    ports.length === 0
      ? answer(1)
      : [
          // Each port that matches goes to the answer behind the last one; from there none of them does.
          ...ports.map((port, index) => jump(JUMP_EQUAL_32, PORT, wordOf(port), ports.length - index)),
          always(2),
          ...answer(1),
        ]
  let body = decision
  for (let index = network.address.length / 4 - 1; index >= 0; index--) {
    const [wanted, bits] = [word(network.address, index), word(mask, index)]
    if (bits === 0) continue
    body = [
      { code: MOVE_32, to: SCRATCH, from: WORDS[index] ?? SCRATCH },
      { code: AND_CONSTANT_32, to: SCRATCH, value: bits },
      jump(JUMP_NOT_EQUAL_32, SCRATCH, wanted, body.length),
      ...body,
    ]
  }
  return body
}

function socketProgram(): Uint8Array {
  const pair = (type: number, protocol: number): Instruction[] => [
    jump(JUMP_NOT_EQUAL_32, WORDS[0], type, 3),
    jump(JUMP_NOT_EQUAL_32, WORDS[1], protocol, 2),
    ...answer(1),
  ]
  return encode([
    { code: LOAD_WORD, to: WORDS[0], from: CONTEXT, offset: SOCK_TYPE },
    { code: LOAD_WORD, to: WORDS[1], from: CONTEXT, offset: SOCK_PROTOCOL },
    ...pair(SOCK_STREAM, IPPROTO_TCP),
    ...pair(SOCK_DGRAM, IPPROTO_UDP),
    ...answer(0),
  ])
}

function answer(value: 0 | 1): Instruction[] {
  return [{ code: MOVE_CONSTANT_64, to: RESULT, value }, { code: EXIT }]
}

/** @param offset instructions to skip */
function jump(code: number, to: number, value: number, offset: number): Instruction {
  return { code, to, value, offset }
}

function always(offset: number): Instruction {
  return { code: 0x05, offset }
}

/** As a little-endian machine loads a port in network byte order. */
function wordOf(port: number): number {
  return ((port & 0xff) << 8) | (port >> 8)
}

/** As a little-endian machine loads it. */
function word(bytes: Uint8Array, index: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getInt32(index * 4, true)
}

/** struct bpf_insn: code, registers, offset, constant. */
function encode(instructions: readonly Instruction[]): Uint8Array {
  const bytes = new Uint8Array(instructions.length * 8)
  const view = new DataView(bytes.buffer)
  instructions.forEach(({ code, to = 0, from = 0, offset = 0, value = 0 }, index) => {
    view.setUint8(index * 8, code)
    view.setUint8(index * 8 + 1, (from << 4) | to)
    view.setInt16(index * 8 + 2, offset, true)
    view.setInt32(index * 8 + 4, value, true)
  })
  return bytes
}
