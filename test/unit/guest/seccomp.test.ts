/** Which system calls a container may make: under each rule of the policy, and beside the default of a container runtime. */
import { readFileSync } from 'node:fs'
import test from 'ava'
import { seccompProfile } from '#guest/agent/seccomp'
import { type SeccompRule, SYSTEM_CALLS } from '#policies/seccomp-rule'

interface Rule {
  readonly names: readonly string[]
  readonly action: string
  readonly args?: readonly { readonly value: number; readonly valueTwo?: number; readonly op: string }[]
}

type Filter = (name: string, firstArgument?: bigint) => boolean

/** Whether a program of a container with this profile may make a call, as the kernel compares. */
function filterOf(profile: object): Filter {
  const { defaultAction, syscalls }: { defaultAction: string; syscalls: readonly Rule[] } = JSON.parse(
    JSON.stringify(profile),
  )
  return (name, firstArgument = 0n) => {
    const rule = syscalls.find(({ names, args }) => {
      if (!names.includes(name)) return false
      return (args ?? []).every(({ value, valueTwo = 0, op }) => {
        if (op === 'SCMP_CMP_EQ') return firstArgument === BigInt(value)
        if (op === 'SCMP_CMP_MASKED_EQ') return (firstArgument & BigInt(value)) === BigInt(valueTwo)
        throw new Error(`${op} is not known here`)
      })
    })
    return (rule?.action ?? defaultAction) === 'SCMP_ACT_ALLOW'
  }
}

function mayCall(profile: object, ...call: Parameters<Filter>): boolean {
  return filterOf(profile)(...call)
}

test('seccomp of the policy takes away from what every container may, and adds nothing', (t) => {
  const guest = seccompProfile(['CHOWN'])
  const every = [...SYSTEM_CALLS]
  const rules: readonly SeccompRule[] = [
    { kind: 'runtime-default' },
    { kind: 'deny', names: ['ptrace', 'socket', 'clone', 'mount'] },
    { kind: 'allow', names: every },
    { kind: 'allow', names: ['execve', 'exit_group', 'clone', 'socket', 'mount', 'init_module', 'clone3'] },
  ]
  for (const capabilities of [['CHOWN'], ['CHOWN', 'SYS_ADMIN']]) {
    const without = seccompProfile(capabilities)
    for (const rule of rules) {
      const profile = seccompProfile(capabilities, rule)
      for (const name of every) {
        for (const argument of [0n, 2n, 17n, 38n, 40n, 40n | (1n << 32n), 0x10000000n, 0x20000n | 17n]) {
          if (mayCall(profile, name, argument)) t.true(mayCall(without, name, argument), `${name} ${argument}`)
        }
      }
    }
  }
  t.true(mayCall(guest, 'ptrace'))
})

test('a denied call is denied whatever its arguments, and an allowed list denies all others', (t) => {
  const denied = seccompProfile([], { kind: 'deny', names: ['ptrace', 'socket', 'clone'] })
  for (const name of ['ptrace', 'socket', 'clone', 'clone3', 'init_module']) t.false(mayCall(denied, name, 2n), name)
  t.true(mayCall(denied, 'openat'))
  const allowed = seccompProfile([], { kind: 'allow', names: ['read', 'clone', 'socket'] })
  t.true(mayCall(allowed, 'read'))
  t.true(mayCall(allowed, 'clone', 17n))
  t.false(mayCall(allowed, 'clone', 0x10000000n), 'a new user namespace')
  t.true(mayCall(allowed, 'socket', 10n))
  t.false(mayCall(allowed, 'socket', 40n | (1n << 32n)))
  t.false(mayCall(allowed, 'write'))
})

/** `linux.seccomp` as containerd 1.6 writes it: of a container without capabilities, and with each that changes it. */
const CONTAINERD: {
  readonly none: object
  readonly capabilities: Readonly<Record<string, object>>
  readonly asNone: readonly string[]
} = JSON.parse(readFileSync('test/vectors/oci/containerd/seccomp-default.json', 'utf8'))

/** Of kernels that came after that containerd, which refuses them because it knows nothing of them. */
const NEWER =
  /^(cachestat|fchmodat2|futex_(requeue|wait|wake)|(get|set|list|remove)xattrat|listmount|lsm_.*|map_shadow_stack|mseal|set_mempolicy_home_node|statmount|uretprobe)$/

/** Values of the first argument that one of the two filters asks about, and others. */
const ARGUMENTS: Readonly<Record<string, readonly bigint[]>> = {
  personality: [
    0n,
    8n,
    0x20000n,
    0x20008n,
    0xffffffffn,
    1n,
    9n,
    0x40000n,
    0x60008n,
    0x80000000n,
    0xfffdfff7n,
    0xfffffff7n,
  ],
  clone: [17n, 0x10000000n, 0x20000n | 17n, 0x7e020000n],
  socket: [1n, 2n, 10n, 16n, 38n, 40n],
}

test('runtime-default is what containerd’s default lets through, of what the guest’s own filter does, under any capability', (t) => {
  const rule: SeccompRule = { kind: 'runtime-default' }
  const names = [...SYSTEM_CALLS].filter((name) => !NEWER.test(name))
  const compared: readonly (readonly [readonly string[], object])[] = [
    [[], CONTAINERD.none],
    ...Object.entries(CONTAINERD.capabilities).map(([capability, profile]) => [[capability], profile] as const),
    ...CONTAINERD.asNone.map((capability) => [[capability], CONTAINERD.none] as const),
  ]
  t.true(compared.length > 30)
  for (const [capabilities, theirs] of compared) {
    const [guest, ours] = [filterOf(seccompProfile(capabilities)), filterOf(seccompProfile(capabilities, rule))]
    const runtime = filterOf(theirs)
    for (const name of names) {
      for (const argument of ARGUMENTS[name] ?? [0n]) {
        const both = guest(name, argument) && runtime(name, argument)
        if (ours(name, argument) === both) continue
        t.fail(`${capabilities.join()}: ${name} ${argument} is ${both ? 'refused' : 'let through'}`)
      }
    }
  }
  for (const name of SYSTEM_CALLS) {
    if (!NEWER.test(name)) continue
    // A memory policy as the others are, and newer versions of containerd treat it as one.
    const expected = name !== 'set_mempolicy_home_node'
    t.is(mayCall(seccompProfile([], rule), name), expected, `${name} is newer`)
  }
})

test('a personality is one of the five that containerd allows, or refused, whichever bits it has', (t) => {
  const [ours, theirs] = [filterOf(seccompProfile([], { kind: 'runtime-default' })), filterOf(CONTAINERD.none)]
  const bits = Array.from({ length: 32 }, (_, bit) => 1n << BigInt(bit))
  const all = 0xffffffffn
  const values = [
    0n,
    all,
    ...bits.flatMap((one) => [one, all ^ one, ...bits.flatMap((two) => [one | two, all ^ one ^ two])]),
  ]
  for (const value of values) t.is(ours('personality', value), theirs('personality', value), String(value))
})
