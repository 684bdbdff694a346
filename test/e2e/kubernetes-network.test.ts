/** A pod's network, names and kernel settings, and connections that containerd forwards to its ports. */
import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { create } from '@bufbuild/protobuf'
import test from 'ava'
import { file } from '../component/image/fixtures/image.ts'
import { LinuxContainerConfigSchema } from '../fixtures/cri/gen/cri_pb.ts'
import { startCluster } from '../fixtures/kubernetes/cluster.ts'
import type { KubernetesPod } from '../fixtures/kubernetes/kubelet.ts'
import { retried } from '../fixtures/kubernetes/retries.ts'
import { FileScope } from '../fixtures/kubernetes/scope.ts'

const MAIN = fileURLToPath(new URL('../../cli/caisson.mjs', import.meta.url))
const MTU = 1400
const LOOK = [
  'cat /etc/resolv.conf /etc/hosts',
  'cat /proc/net/if_inet6 /proc/net/ipv6_route /sys/class/net/*/mtu',
  'echo somaxconn $(cat /proc/sys/net/core/somaxconn) msgmax $(cat /proc/sys/kernel/msgmax)',
].join('; ')

const CONFINED =
  'cat /proc/self/status; cat /etc/passwd > /file || echo kept; id; cat /sys/devices/system/cpu/online; mkdir /made 2>&1 || true'
const GUARANTEED = { memoryLimitInBytes: 256n << 20n, cpuQuota: 200_000n, cpuPeriod: 100_000n }

const PROFILE = {
  defaultAction: 'SCMP_ACT_ALLOW',
  architectures: ['SCMP_ARCH_X86_64'],
  syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO' }],
}
const shell = (script: string) => ['/bin/sh', '-c', script]

/** What a tenant applies; the policy is what `caisson policy generate` makes of it. */
const POD = (image: string) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'net' },
  spec: {
    runtimeClassName: 'caisson',
    automountServiceAccountToken: false,
    securityContext: { sysctls: Object.entries(SYSCTLS).map(([name, value]) => ({ name, value })) },
    hostAliases: [{ ip: '10.9.9.9', hostnames: ['db.shop.test', 'db'] }],
    containers: [
      {
        name: 'server',
        image,
        command: ['/bin/echo-server', '8080', '9090', 'http:8000'],
        ports: [{ containerPort: 8080 }],
      },
      {
        name: 'confined',
        image,
        command: shell(CONFINED),
        securityContext: {
          runAsUser: 1000,
          runAsGroup: 2000,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'], add: ['KILL'] },
          seccompProfile: { type: 'Localhost', localhostProfile: 'profiles/no-folders.json' },
        },
        resources: { limits: { memory: '256Mi', cpu: '2' } },
      },
      { name: 'look', image, command: shell(LOOK) },
    ],
  },
})
const SYSCTLS = { 'net.core.somaxconn': '1234', 'kernel.msgmax': '9999' }

const scope = new FileScope()
let pod: KubernetesPod
let image: string
let state: string
let namespace: string
let killDaemon: () => Promise<void>
let runDenied: () => Promise<unknown>
let runPtp: () => Promise<KubernetesPod>

test.before(async () => {
  const layers = [{ compression: 'gzip' as const, entries: [file('bin/echo-server', echoServer(), 0o755)] }]
  const cluster = await startCluster(scope, undefined, { layers, dualStackMtu: MTU })
  image = cluster.image.reference
  const { kubelet, folder } = cluster
  state = cluster.containerd.state
  namespace = cluster.namespace
  killDaemon = () => cluster.containerd.endDaemon('SIGKILL')
  await kubelet.pull(image)
  mkdirSync(join(folder, 'profiles'))
  writeFileSync(join(folder, 'profiles/no-folders.json'), JSON.stringify(PROFILE))
  const asIs = (text: string) => text
  const initdata = await cluster.generate(JSON.stringify(POD(image)), asIs, ['--seccomp-profiles', folder])
  const dns = { searches: ['shop.test', 'cluster.test'], options: ['ndots:3'] }
  pod = await kubelet.runPod({ name: 'net', initdata, dns, linux: { sysctls: SYSCTLS, resources: GUARANTEED } })
  runPtp = async () => {
    await cluster.containerd.usePtp()
    return retried(() => kubelet.runPod({ name: 'ptp', initdata, linux: { sysctls: SYSCTLS } }))
  }
  runDenied = () => kubelet.runPod({ name: 'denied', initdata, linux: { sysctls: { 'net.core.somaxconn': '4096' } } })
})
test.after.always(() => scope.end())

test.serial('port-forward reaches the ports that the policy opens, and no others', async (t) => {
  const server = await pod.run('server', image, { command: ['/bin/echo-server', '8080', '9090', 'http:8000'] })
  await server.logged(/listening/)
  const first = await pod.forward(8080, 'hello\n', 'hello\n')
  t.deepEqual(first, { data: '8080: hello\n', error: '' })
  // More than fits into any buffer on the way, several at once.
  const lines = Array.from({ length: 3000 }, (_, index) => `line ${index} ${'x'.repeat(64)}`)
  const text = lines.map((line) => `${line}\n`).join('')
  const answers = await Promise.all([1, 2, 3].map(() => pod.forward(8080, text, `8080: ${lines.at(-1) ?? ''}\n`)))
  for (const { data, error } of answers) {
    t.is(error, '')
    t.deepEqual(
      data.split('\n').slice(0, -1),
      lines.map((line) => `8080: ${line}`),
    )
  }
  // It listens there too, and the policy does not open it.
  const closed = await pod.forward(9090, 'hello\n', 'hello\n')
  t.is(closed.data, '')
  t.regex(closed.error, /9090|refused/)
})

test.serial(
  'HTTP and TCP probes of the node reach the pod at its address, and what does not listen fails them',
  async (t) => {
    const address = (await pod.status())?.network?.ip ?? ''
    const probe = (port: number): Promise<string> => probed(`http://${address}:${port}/healthz`)
    t.is(await probe(8000), '200 ok')
    // It listens on the pod's loopback only, so a probe of the port fails; nobody listens on the other.
    t.is(await probe(8080), 'ECONNREFUSED')
    t.is(await probe(8001), 'ECONNREFUSED')
  },
)

test.serial(
  'search domains, host aliases, kernel settings, IPv6 and MTU of a pod are those of CNI, pod and policy',
  async (t) => {
    const look = await pod.run('look', image, { command: ['/bin/sh', '-c', LOOK] })
    t.is((await look.exited()).exitCode, 0)
    const lines = look.log().map((line) => line.replace('stdout F ', ''))
    const address = (await pod.status())?.network?.ip ?? ''
    for (const line of [
      'nameserver 10.88.0.1',
      'search shop.test cluster.test',
      'options ndots:3',
      `${address} net`,
      '10.9.9.9 db.shop.test db',
      'somaxconn 1234 msgmax 9999',
      String(MTU),
    ]) {
      t.true(lines.includes(line), `${line} in ${lines.join('\n')}`)
    }
    t.true(
      lines.some((line) => /^fd88[0-9a-f]{28} .* eth0$/.test(line)),
      lines.join('\n'),
    )
    const defaultRoute = /^0{32} 00 0{32} 00 fd880{27}1 /
    t.true(
      lines.some((line) => defaultRoute.test(line)),
      lines.join('\n'),
    )
  },
)

test.serial(
  'capabilities, seccomp, read-only root, user and privileges are the policy’s, in a VM of the pod’s size',
  async (t) => {
    const confined = await pod.run('confined', image, {
      command: ['/bin/sh', '-c', CONFINED],
      linux: create(LinuxContainerConfigSchema, {
        // As a pod of QoS class Guaranteed asks, and with more rights than the policy has for it.
        resources: GUARANTEED,
        securityContext: { runAsUser: { value: 1000n }, runAsGroup: { value: 2000n }, noNewPrivs: false },
      }),
    })
    t.is((await confined.exited()).exitCode, 0)
    const lines = confined.log().map((line) => line.replace(/^std(?:out|err) F /, ''))
    const bounding = (1n << 5n).toString(16).padStart(16, '0')
    for (const line of [
      `CapBnd:\t${bounding}`,
      `CapEff:\t${'0'.repeat(16)}`,
      'NoNewPrivs:\t1',
      'Seccomp:\t2',
      'kept',
      '0-1',
    ]) {
      t.true(lines.includes(line), `${line} in ${lines.join('\n')}`)
    }
    // Not for its read-only root.
    t.true(
      lines.some((line) => /mkdir.*not permitted/i.test(line)),
      lines.join('\n'),
    )
    t.true(
      lines.some((line) => line.startsWith('uid=1000 gid=2000')),
      lines.join('\n'),
    )
  },
)

test.serial('a kernel setting that the policy does not say is refused', async (t) => {
  await t.throwsAsync(runDenied(), { message: /ERR_POLICY_DENIED/ })
})

test.serial('a node tells of its pods: ps --pods to people, monitor to Prometheus', async (t) => {
  const socket = `${state}/node.sock`
  const listed = JSON.parse(await caisson('ps', '--pods', '--json', '--socket', socket)) as readonly object[]
  t.like(listed[0], { name: 'net', namespace: 'default', stage: 'attested' })
  t.regex(await caisson('ps', '--pods', '--socket', socket), /default +net +attested/)
  const monitor = spawn(process.execPath, [MAIN, 'monitor', '--json', '--listen', '127.0.0.1:0', '--state', state])
  scope.teardown(() => monitor.kill('SIGKILL'))
  const [line] = (await once(createInterface({ input: monitor.stdout }), 'line')) as [string]
  const { url } = JSON.parse(line) as { url: string }
  const text = await (await fetch(url)).text()
  for (const pattern of [
    /^caisson_node_up 1$/m,
    /^caisson_pod_attested\{namespace="default",pod="net"\} 1$/m,
    /^caisson_pod_vm_bytes\{namespace="default",pod="net"\} [1-9]\d{7,}$/m,
    /^caisson_pod_agent_bytes\{namespace="default",pod="net"\} [1-9]\d{6,}$/m,
    /^caisson_boot_stage_seconds_count\{stage="agent"\} [12]$/m,
    /^caisson_rpc_seconds_count\{method="create"\} \d+$/m,
    /^caisson_attestations_total\{outcome="attested"\} 1$/m,
  ]) {
    t.regex(text, pattern)
  }
  t.is((await fetch(url.replace('/metrics', '/'))).status, 404)
})

test.serial('port-forward outlives the daemon of the node', async (t) => {
  await killDaemon()
  t.deepEqual(await pod.forward(8080, 'again\n', 'again\n'), { data: '8080: again\n', error: '' })
})

test.serial(
  'a pod with an interface of its own on the node (CNI ptp) is reached and reaches others, IPv4 and IPv6',
  async (t) => {
    // The bridge has the address that is the other end of the pod's interface now.
    await pod.remove()
    await promisify(execFile)('nsenter', [`--net=${namespace}`, 'ip', 'link', 'delete', 'cni0'])
    const alone = await runPtp()
    // The image comes through it, by a name.
    const server = await alone.run('server', image, { command: ['/bin/echo-server', '8080', '9090', 'http:8000'] })
    await server.logged(/listening/)
    const { network } = (await alone.status()) ?? {}
    const addresses = [network?.ip ?? '', ...(network?.additionalIps ?? []).map(({ ip }) => ip)]
    t.deepEqual(addresses.map((address) => (address.includes(':') ? 'IPv6' : 'IPv4')).toSorted(), ['IPv4', 'IPv6'])
    for (const address of addresses) {
      const host = address.includes(':') ? `[${address}]` : address
      t.is(await probed(`http://${host}:8000/healthz`), '200 ok', address)
    }
    t.deepEqual(await alone.forward(8080, 'hello\n', 'hello\n'), { data: '8080: hello\n', error: '' })
    await alone.remove()
  },
)

/** As a kubelet on the node probes: an HTTP request, and its first step, a connection, is the TCP probe. */
async function probed(url: string): Promise<string> {
  const script = `fetch(${JSON.stringify(url)}).then(
    async (answer) => console.log(answer.status, await answer.text()),
    (error) => console.log(error.cause.code))`
  const { stdout } = await promisify(execFile)('nsenter', [`--net=${namespace}`, process.execPath, '-e', script])
  return stdout.trim()
}

async function caisson(...words: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [MAIN, ...words])
  return stdout
}

function echoServer(): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), 'echo-'))
  const source = fileURLToPath(new URL('../fixtures/kubernetes/echo-server.c', import.meta.url))
  execFileSync('gcc', ['-static', '-O2', '-s', '-Wall', '-Werror', '-o', join(folder, 'server'), source])
  const program = readFileSync(join(folder, 'server'))
  rmSync(folder, { recursive: true })
  return program
}
