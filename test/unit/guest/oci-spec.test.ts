import test from 'ava'
import { resolveUser } from '#guest/agent/image-user'
import { buildOciSpec, buildProcess, execProcess, mergeEnv, type SpecInput } from '#guest/agent/oci-spec'
import { hostsText, resolvText } from '#guest/agent/sandbox-files'
import { seccompProfile } from '#guest/agent/seccomp'
import { stopSignal } from '#guest/agent/signals'
import { admittedContainer, imageConfig } from './container-parts.ts'

const PASSWD = 'root:x:0:0:root:/root:/bin/sh\nbroken line\nweb:x:33:34::/srv:\nnohome:x:40:40:::\n'
const GROUP = 'root:x:0:\nweb:x:34:\nlogs:x:44:web,nohome\naudio:x:45:web\nbad:x:nan:web\n'
/** A volume of the container's own. */
const OWN = { volume: undefined, subPath: undefined }
const NO_LIMITS = { memoryBytes: 0, cpuQuotaUs: 0, cpuPeriodUs: 0, cpuShares: 0, pids: 0 }

function input(change: Partial<SpecInput> = {}): SpecInput {
  return {
    config: imageConfig(),
    admitted: admittedContainer(),
    user: { uid: 33, gid: 34, additionalGids: [44], home: '/srv' },
    rootfs: '/run/caisson/containers/c1/rootfs',
    cgroupPath: '/caisson/c1',
    hostname: 'sandbox',
    terminal: false,
    resources: NO_LIMITS,
    imageVolumes: [],
    binds: [],
    devices: [],
    sysctls: {},
    processes: undefined,
    ...change,
  }
}

test('users are found by the image’s own files', (t) => {
  t.deepEqual(resolveUser('web', PASSWD, GROUP), { uid: 33, gid: 34, additionalGids: [44, 45], home: '/srv' })
  t.deepEqual(resolveUser('33', PASSWD, GROUP), { uid: 33, gid: 34, additionalGids: [44, 45], home: '/srv' })
  t.deepEqual(resolveUser('', PASSWD, GROUP), { uid: 0, gid: 0, additionalGids: [], home: '/root' })
  t.deepEqual(resolveUser('', '', ''), { uid: 0, gid: 0, additionalGids: [], home: '/' })
  t.deepEqual(resolveUser('1234:99', PASSWD, GROUP), { uid: 1234, gid: 99, additionalGids: [], home: '/' })
  t.deepEqual(resolveUser('web:logs', PASSWD, GROUP), { uid: 33, gid: 44, additionalGids: [45], home: '/srv' })
  t.is(resolveUser('nohome', PASSWD, GROUP).home, '/')
})

test('an unknown user or group name is refused, never guessed', (t) => {
  for (const spec of ['nobody', 'web:nogroup', ':0', '4294967295', '-1', '99999999999']) {
    t.throws(() => resolveUser(spec, PASSWD, GROUP), { code: 'ERR_IMAGE_USER' }, spec)
  }
})

test('the command is the policy’s, else the image’s own', (t) => {
  t.deepEqual(buildProcess(input()).args, ['/bin/server', '--quiet'])
  t.deepEqual(buildProcess(input({ admitted: admittedContainer({ args: ['/bin/other'] }) })).args, ['/bin/other'])
  const none = { ...imageConfig(), entrypoint: [], cmd: [] }
  t.throws(() => buildProcess(input({ config: none })), { code: 'ERR_IMAGE_COMMAND' })
})

test('the environment is the image’s, with the admitted variables over it and each once', (t) => {
  t.deepEqual(mergeEnv(['A=1', 'B=1'], ['B=2'], ['C=3=x']), ['A=1', 'B=2', 'C=3=x'])
  const { env } = buildProcess(input({ admitted: admittedContainer({ env: ['MODE=asked'] }) }))
  t.true(env.includes('MODE=asked'))
  t.true(env.includes('HOME=/srv'))
  t.true(env.includes('HOSTNAME=sandbox'))
  t.is(env.filter((entry) => entry.startsWith('PATH=')).length, 1)
})

test('a process gets the policy’s capabilities, no inheritable ones, and no new privileges', (t) => {
  const process = buildProcess(input())
  t.deepEqual(process.capabilities, { bounding: ['CAP_KILL'], effective: ['CAP_KILL'], permitted: ['CAP_KILL'] })
  t.true(process.noNewPrivileges)
  t.deepEqual(process.user, { uid: 33, gid: 34, additionalGids: [44] })
})

test('the specification shares the sandbox’s network and host name and nothing else', (t) => {
  const spec = JSON.parse(JSON.stringify(buildOciSpec(input())))
  t.deepEqual(spec.linux.namespaces, [{ type: 'pid' }, { type: 'ipc' }, { type: 'mount' }, { type: 'cgroup' }])
  t.is(spec.linux.resources.devices[0].allow, false)
  t.is(spec.linux.resources.pids.limit, 4096)
  t.is(spec.linux.resources.memory, undefined)
  t.true(spec.linux.maskedPaths.includes('/sys/kernel/security'))
  for (const path of ['/proc/sys', '/proc/sysrq-trigger']) t.true(spec.linux.readonlyPaths.includes(path), path)
  t.deepEqual(spec.linux.seccomp, JSON.parse(JSON.stringify(seccompProfile(['KILL']))))
  t.is(spec.hooks, undefined)
  t.is(spec.linux.devices, undefined)
})

test('a block device is in the specification, with leave for it and no other', (t) => {
  const node = { path: '/dev/db', major: 254, minor: 48, readOnly: true, uid: 1, gid: 2 }
  const { linux } = JSON.parse(JSON.stringify(buildOciSpec(input({ devices: [node] }))))
  t.deepEqual(linux.devices, [{ path: '/dev/db', type: 'b', major: 254, minor: 48, fileMode: 0o660, uid: 1, gid: 2 }])
  const blocks = linux.resources.devices.filter(({ type }: { type: string }) => type === 'b')
  t.deepEqual(blocks, [{ allow: true, type: 'b', major: 254, minor: 48, access: 'r' }])
})

test('limits, read-only root and mounts reach the specification', (t) => {
  const admitted = admittedContainer(
    { mounts: [{ kind: 'tmpfs', path: '/cache', readOnly: false, maxBytes: 4096, required: true, ...OWN }] },
    { readOnlyRoot: true },
  )
  const resources = { memoryBytes: 1000, cpuQuotaUs: 5000, cpuPeriodUs: 0, cpuShares: 512, pids: 7 }
  const binds = [{ source: '/run/caisson/hosts', destination: '/etc/hosts', readOnly: true }]
  const imageVolumes = [{ source: '/run/caisson/v', destination: '/etc', readOnly: false }]
  const spec = JSON.parse(JSON.stringify(buildOciSpec(input({ admitted, resources, imageVolumes, binds }))))
  const destinations = spec.mounts.map(({ destination }: { destination: string }) => destination)
  t.deepEqual(destinations.slice(-3), ['/etc', '/cache', '/etc/hosts'])
  t.true(spec.root.readonly)
  t.deepEqual(spec.linux.resources.memory, { limit: 1000, swap: 1000 })
  t.deepEqual(spec.linux.resources.cpu, { quota: 5000, period: 100_000, shares: 512 })
  t.is(spec.linux.resources.pids.limit, 7)
  const byPath = new Map(spec.mounts.map((mount: { destination: string }) => [mount.destination, mount]))
  t.deepEqual(byPath.get('/cache'), {
    destination: '/cache',
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'nodev', 'rw', 'mode=1777', 'size=4096'],
  })
  t.deepEqual(byPath.get('/etc/hosts'), {
    destination: '/etc/hosts',
    type: 'bind',
    source: '/run/caisson/hosts',
    options: ['rbind', 'rprivate', 'nosuid', 'nodev', 'ro'],
  })
})

test('an exec is the container’s process with other arguments', (t) => {
  const first = buildProcess(input())
  const exec = execProcess(first, ['/bin/ls'], true)
  t.deepEqual(exec.args, ['/bin/ls'])
  t.true(exec.terminal)
  t.true(exec.env.includes('TERM=xterm'))
  t.deepEqual(exec.capabilities, first.capabilities)
})

test('no container may load code into the kernel, set the clock or speak past the agent to the host', (t) => {
  const profile = JSON.stringify(seccompProfile([]))
  for (const name of ['init_module', 'kexec_load', 'settimeofday', 'bpf', 'mount', 'unshare', 'reboot']) {
    t.true(profile.includes(`"${name}"`), name)
  }
  t.regex(profile, /"socket".*"valueTwo":40/)
  t.regex(profile, /"clone".*1073741824|"clone".*536870912/)
  const administrator = JSON.stringify(seccompProfile(['SYS_ADMIN']))
  t.false(administrator.includes('"mount"'))
  t.true(administrator.includes('"init_module"'))
  t.true(administrator.includes('"valueTwo":40'))
})

/** What the filter answers to a call, as the kernel compares: 64 bits of each argument. True: refused. */
function refuses(profile: object, name: string, firstArgument: bigint): boolean {
  const { syscalls } = JSON.parse(JSON.stringify(profile))
  return syscalls.some((rule: { names: string[]; args?: { value: number; valueTwo?: number; op: string }[] }) => {
    if (!rule.names.includes(name)) return false
    return (rule.args ?? []).every(({ value, valueTwo = 0, op }) =>
      op === 'SCMP_CMP_MASKED_EQ'
        ? (firstArgument & BigInt(value)) === BigInt(valueTwo)
        : firstArgument === BigInt(value),
    )
  })
}

test('bits that the kernel ignores do not carry a socket family past the filter', (t) => {
  const profile = seccompProfile([])
  for (const family of [38n, 40n]) {
    t.true(refuses(profile, 'socket', family))
    t.true(refuses(profile, 'socket', family | (1n << 32n)), `family ${family} with a high bit`)
    t.true(refuses(profile, 'socket', family | (0xffffffffn << 32n)))
  }
  t.false(refuses(profile, 'socket', 2n))
  t.false(refuses(profile, 'socket', 10n))
  t.true(refuses(profile, 'clone', 0x10000000n | (1n << 40n)))
  t.false(refuses(profile, 'clone', 17n))
})

test('stop signals are read as names and numbers, and anything else is SIGTERM', (t) => {
  t.is(stopSignal('SIGQUIT'), 3)
  t.is(stopSignal('quit'), 3)
  t.is(stopSignal('3'), 3)
  t.is(stopSignal('SIGRTMIN+3'), 37)
  t.is(stopSignal(''), 15)
  t.is(stopSignal('SIGNONSENSE'), 15)
  t.is(stopSignal('99'), 15)
})

test('host files hold what was asked for and the sandbox’s own name', (t) => {
  const asked = { hostname: 'sandbox', hosts: [{ name: 'registry.test', address: '10.0.2.2' }], interfaces: [] }
  t.true(hostsText(asked).endsWith('127.0.1.1 sandbox\n10.0.2.2 registry.test\n'))
  const address = { address: Uint8Array.of(10, 1, 2, 3), prefix: 24 }
  const six = { address: Uint8Array.of(0xfd, ...new Array<number>(14).fill(0), 5), prefix: 64 }
  const link = { mac: new Uint8Array(6), addresses: [address, six], gateways: [], routes: [], neighbours: [], mtu: 0 }
  const named = hostsText({ ...asked, interfaces: [link] }, [{ address: '10.9.9.9', names: ['db', 'db.test'] }])
  t.true(named.endsWith('10.1.2.3 sandbox\nfd00:0:0:0:0:0:0:5 sandbox\n10.0.2.2 registry.test\n10.9.9.9 db db.test\n'))
  const none = { searches: [], resolverOptions: [] }
  t.is(resolvText({ ...none, nameservers: ['10.0.2.3', '::1'] }), 'nameserver 10.0.2.3\nnameserver ::1\n')
  const custom = { nameservers: [], searches: ['a.test', 'b.test'], resolverOptions: ['ndots:2'] }
  t.is(resolvText(custom), 'search a.test b.test\noptions ndots:2\n')
})

test('containers join the process namespace that the policy has them share, and get the pod’s IPC settings', (t) => {
  const spec = (change: Partial<SpecInput>) =>
    buildOciSpec(input(change)) as { linux: { namespaces: { type: string; path?: string }[]; sysctl: object } }
  const pid = (change: Partial<SpecInput>) => spec(change).linux.namespaces.find(({ type }) => type === 'pid')
  t.deepEqual(pid({}), { type: 'pid' })
  t.deepEqual(pid({ processes: '/proc/7/ns/pid' }), { type: 'pid', path: '/proc/7/ns/pid' })
  t.deepEqual(spec({ sysctls: { 'kernel.msgmax': '65536' } }).linux.sysctl, { 'kernel.msgmax': '65536' })
})
