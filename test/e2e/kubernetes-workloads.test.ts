/** What pods do on Kubernetes, over CRI as the kubelet asks for it. docs/conformance.md lists the cases. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { create } from '@bufbuild/protobuf'
import test from 'ava'
import { parseDocument, type YAMLMap, type YAMLSeq } from 'yaml'
import { ContainerState, LinuxContainerConfigSchema, NamespaceMode } from '../fixtures/cri/gen/cri_pb.ts'
import { type Cluster, startCluster } from '../fixtures/kubernetes/cluster.ts'
import { FileScope } from '../fixtures/kubernetes/scope.ts'

const LOOP = "trap 'exit 5' TERM; echo waiting; while :; do sleep 1; done"
const DEAF = "trap '' TERM; echo deaf; while :; do sleep 1; done"
const LOOK = 'id; pwd; env; hostname; cat /etc/resolv.conf; echo kept > /data/file; cat /data/file'
const GREEDY = 'exec dd if=/dev/zero of=/dev/null bs=200M count=1'
const LIMITS = 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max'
/** The words of every process that is seen. */
const WORDS = 'for f in /proc/[0-9]*/cmdline; do cat $f; echo; done'
const SIZE = 'read line; echo "got $line"; stty size'
const MIB = 1024n * 1024n

const shell = (script: string) => ['/bin/sh', '-c', script]
const probe = (...command: readonly string[]) => ({ exec: { command } })

/** What a tenant applies; the policy is what `caisson policy generate` makes of it. */
const POD = (image: string) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'many' },
  spec: {
    runtimeClassName: 'caisson',
    automountServiceAccountToken: false,
    volumes: [{ name: 'data', emptyDir: {} }],
    containers: [
      { name: 'once', image },
      {
        name: 'shell',
        image,
        command: shell(LOOP),
        stdin: true,
        tty: true,
        startupProbe: probe('/bin/sh', '-c', LIMITS),
        livenessProbe: probe('/bin/false'),
        readinessProbe: probe('/bin/sleep', '60'),
        lifecycle: { preStop: probe('/bin/sh', '-c', SIZE) },
      },
      { name: 'deaf', image, command: shell(DEAF) },
      {
        name: 'look',
        image,
        command: shell(LOOK),
        env: [{ name: 'B', value: 'two' }],
        workingDir: '/srv',
        securityContext: { runAsUser: 0, seccompProfile: { type: 'RuntimeDefault' } },
        volumeMounts: [{ name: 'data', mountPath: '/data' }],
      },
      {
        name: 'greedy',
        image,
        command: shell(GREEDY),
        securityContext: { runAsUser: 0 },
        resources: { limits: { memory: '96Mi', cpu: '500m' } },
      },
      { name: 'silent', image },
      { name: 'peer', image, command: ['/bin/sleep', '12345'] },
    ],
  },
})

const SHARED = (image: string) => {
  const { spec, ...pod } = POD(image)
  const containers = [
    { name: 'peer', image, command: ['/bin/sleep', '12345'] },
    { name: 'look', image, command: shell(WORDS) },
  ]
  return { ...pod, spec: { ...spec, volumes: [], containers, shareProcessNamespace: true } }
}

/** What a person adds: no YAML has ephemeral containers, and one container's output is not for the host. */
function decided(policy: string, image: string): string {
  const document = parseDocument(policy)
  const containers = document.get('containers') as YAMLSeq<YAMLMap>
  containers.items.find((container) => container.get('name') === 'silent')?.delete('logs')
  containers.add(
    document.createNode({ name: 'debug', image, args: shell(WORDS), targetContainer: 'shell', logs: 'allow' }),
  )
  return document.toString()
}

const scope = new FileScope()
let cluster: Cluster
let initdata: Uint8Array
test.before(async () => {
  cluster = await startCluster(scope)
  const { reference } = cluster.image
  initdata = await cluster.generate(JSON.stringify(POD(reference)), (policy) => decided(policy, reference))
  await cluster.kubelet.pull(reference)
})
test.after.always(() => scope.end())

test.serial(
  'containers of a pod come and go: one after the other, several at once, and the last one again',
  async (t) => {
    const { kubelet, image: pushed } = cluster
    const image = pushed.reference
    const pod = await kubelet.runPod({ name: 'many', initdata })
    // An init container: it ends before the others start, and is kept until it is removed.
    const init = await pod.run('once', image)
    t.is((await init.exited()).exitCode, 7)
    t.is((await init.status()).reason, 'Error')
    // A sidecar: begun before the others, and restarted beside them.
    const sleep = { command: ['/bin/sleep', '12345'] }
    const sidecar = await pod.run('peer', image, sleep)
    const [shell, deaf] = await Promise.all([
      pod.run('shell', image, { command: ['/bin/sh', '-c', LOOP] }),
      pod.run('deaf', image, { command: ['/bin/sh', '-c', DEAF] }),
    ])
    await shell.logged(/waiting/)
    await deaf.logged(/deaf/)
    await sidecar.stop(0)
    t.is((await sidecar.status()).exitCode, 137)
    await sidecar.remove()
    const restarted = await pod.run('peer', image, { ...sleep, attempt: 1 })
    t.is((await shell.status()).state, ContainerState.CONTAINER_RUNNING)
    // SIGTERM is heard by one and not by the other, who is killed when its time is up.
    await shell.stop(60)
    t.is((await shell.status()).exitCode, 5)
    await deaf.stop(1)
    t.is((await deaf.status()).exitCode, 137)
    // Last of all, as a kubelet ends sidecars.
    t.is((await restarted.status()).state, ContainerState.CONTAINER_RUNNING)
    await restarted.stop(0)
    for (const container of [init, shell, deaf, restarted]) await container.remove()
    t.is((await pod.status())?.state, 0)
    const again = await pod.run('shell', image, { command: ['/bin/sh', '-c', LOOP], attempt: 1 })
    await again.logged(/waiting/)
    t.is((await again.status()).state, ContainerState.CONTAINER_RUNNING)
    // Stopping the pod ends what still runs.
    await pod.stop()
    t.is((await again.status()).state, ContainerState.CONTAINER_EXITED)
    t.is((await pod.status())?.state, 1)
    await pod.stop()
    await pod.remove()
  },
)

test.serial(
  'environment, user, directory, volume and names are what pod and image say, within the policy',
  async (t) => {
    const { kubelet, folder, image: pushed } = cluster
    const image = pushed.reference
    const pod = await kubelet.runPod({ name: 'inside', initdata })
    const volume = join(folder, 'pods/u/volumes/kubernetes.io~empty-dir/data')
    mkdirSync(volume, { recursive: true })
    const look = await pod.run('look', image, {
      command: ['/bin/sh', '-c', LOOK],
      envs: [{ $typeName: 'runtime.v1.KeyValue', key: 'B', value: 'two' }],
      mounts: [{ $typeName: 'runtime.v1.Mount', containerPath: '/data', hostPath: volume, readonly: false }],
      workingDir: '/srv',
      linux: runAs(0n),
    })
    t.is((await look.exited()).exitCode, 0)
    const lines = look.log().map((line) => line.replace('stdout F ', ''))
    t.true(lines.some((line) => line.startsWith('uid=0(root)')))
    for (const line of ['/srv', 'A=image', 'B=two', 'inside', 'nameserver 10.88.0.1', 'kept']) {
      t.true(lines.includes(line), `${line} in ${lines.join('\n')}`)
    }
    // The image's own named user, which this machine cannot look up.
    const once = await pod.run('once', image)
    t.is((await once.exited()).exitCode, 7)
    // What the policy does not say is refused, whatever asks for it.
    const refused = { message: /ERR_POLICY_DENIED/ }
    await t.throwsAsync(pod.run('silent', image, { command: ['/bin/id'] }), refused)
    await t.throwsAsync(
      pod.run('silent', image, {
        attempt: 1,
        envs: [{ $typeName: 'runtime.v1.KeyValue', key: 'LD_PRELOAD', value: 'x' }],
      }),
      refused,
    )
    await t.throwsAsync(pod.run('silent', image, { attempt: 2, linux: runAs(0n) }), refused)
    await t.throwsAsync(pod.run('stranger', image), refused)
    // Output stays in the guest without `logs: allow`.
    const silent = await pod.run('silent', image, { attempt: 3 })
    t.is((await silent.exited()).exitCode, 7)
    t.deepEqual(silent.log(), [])
    await pod.remove()
  },
)

test.serial('limits hold, can be changed, and are told apart from other ends; a pod can be paused', async (t) => {
  const { kubelet, containerd, image: pushed } = cluster
  const image = pushed.reference
  const topics = await containerd.events(t)
  const pod = await kubelet.runPod({ name: 'limited', initdata })
  const linux = limits(96n * MIB)
  const shell = await pod.run('shell', image, { command: ['/bin/sh', '-c', LOOP], linux })
  const read = async (): Promise<string> => Buffer.from((await shell.exec(['/bin/sh', '-c', LIMITS])).stdout).toString()
  t.is(await read(), `${96n * MIB}\n50000 100000\n`)
  await shell.update({ memoryLimitInBytes: 128n * MIB, cpuQuota: 80_000n, cpuPeriod: 100_000n })
  t.is(await read(), `${128n * MIB}\n80000 100000\n`)
  const stats = await shell.stats()
  t.true((stats.cpu?.usageCoreNanoSeconds?.value ?? 0n) > 0n)
  t.true((stats.memory?.workingSetBytes?.value ?? 0n) > 0n)
  containerd.ctr('task', 'pause', shell.id)
  t.regex(containerd.ctr('task', 'list'), new RegExp(`${shell.id} .*PAUSED`))
  containerd.ctr('task', 'resume', shell.id)
  t.regex(containerd.ctr('task', 'list'), new RegExp(`${shell.id} .*RUNNING`))
  t.regex(containerd.ctr('task', 'ps', shell.id), /guest pid [0-9]+/)
  const greedy = await pod.run('greedy', image, {
    command: ['/bin/sh', '-c', GREEDY],
    linux: { ...linux, ...runAs(0n, linux) },
  })
  const ended = await greedy.exited()
  t.is(ended.exitCode, 137)
  t.is(ended.reason, 'OOMKilled')
  // The memory of a guest is what its host must not have.
  t.throws(() => containerd.ctr('task', 'checkpoint', shell.id), { message: /not implemented/ })
  await pod.remove()
  while (!topics(pod.id).includes('/tasks/delete')) await new Promise((resolve) => setTimeout(resolve, 50))
  const exec = ['/tasks/exec-added', '/tasks/exec-started', '/tasks/exit']
  const held = ['/tasks/paused', '/tasks/resumed']
  const end = ['/tasks/exit', '/tasks/delete']
  // Who wants a checkpoint pauses first, and goes on when there is none.
  t.deepEqual(topics(shell.id), ['/tasks/create', '/tasks/start', ...exec, ...exec, ...held, ...held, ...end])
  t.deepEqual(topics(greedy.id), ['/tasks/create', '/tasks/start', '/tasks/oom', ...end])
  t.deepEqual(topics(pod.id), ['/tasks/create', '/tasks/start', ...end])
})

test.serial('exec and attach carry input, terminals, sizes and exit codes', async (t) => {
  const { kubelet, image: pushed } = cluster
  const image = pushed.reference
  const pod = await kubelet.runPod({ name: 'streams', initdata })
  const shell = await pod.run('shell', image, { command: ['/bin/sh', '-c', LOOP] })
  const interactive = await shell.execStream(
    ['/bin/sh', '-c', SIZE],
    [
      { channel: 4, text: '{"Width":91,"Height":37}', after: '' },
      { channel: 0, text: 'hello\n', after: '' },
    ],
    true,
  )
  t.regex(interactive.output, /got hello/)
  t.regex(interactive.output, /37 91/)
  t.regex(interactive.status, /"Success"/)
  t.is((await shell.exec(['/bin/false'])).exitCode, 1)
  // A probe that takes too long is ended, and the container goes on.
  await t.throwsAsync(shell.exec(['/bin/sleep', '60'], 2), { message: /timeout|DEADLINE/i })
  t.is((await shell.status()).state, ContainerState.CONTAINER_RUNNING)
  await pod.remove()
})

test.serial(
  'hooks and probes run by the exact words of the policy, and an ephemeral container looks into the one it is for',
  async (t) => {
    const { kubelet, image: pushed } = cluster
    const image = pushed.reference
    const pod = await kubelet.runPod({ name: 'looked-at', initdata })
    const command = ['/bin/sh', '-c', LOOP]
    // It sees the processes of a container that runs, so there is none to see yet.
    const debugged = { command: ['/bin/sh', '-c', WORDS] }
    const early = await pod.create('debug', image, debugged)
    await t.throwsAsync(early.start(), { message: /ERR_POLICY_DENIED/ })
    // What a kubelet copies into the pod's status.
    t.regex((await early.status()).message, /ERR_POLICY_DENIED/)
    const shell = await pod.run('shell', image, { command })
    // As a kubelet runs postStart hooks, exec probes and preStop hooks: ExecSync, and the exit code counts.
    t.is((await shell.exec(['/bin/sh', '-c', LIMITS], 60)).exitCode, 0)
    t.is((await shell.exec(['/bin/false'], 60)).exitCode, 1)
    await t.throwsAsync(shell.exec(['/bin/sh', '-c', `${LIMITS} /etc/passwd`], 60), { message: /ERR_POLICY_DENIED/ })
    const peer = await pod.run('peer', image, { command: ['/bin/sleep', '12345'] })
    const debug = await pod.run('debug', image, {
      ...debugged,
      attempt: 1,
      linux: namespaces({ pid: NamespaceMode.TARGET, targetId: shell.id }),
    })
    t.is((await debug.exited()).exitCode, 0)
    const seen = debug.log().join('\n')
    t.true(seen.includes('echo waiting'), seen)
    t.false(seen.includes('12345'), seen)
    t.is((await peer.status()).state, ContainerState.CONTAINER_RUNNING)
    await pod.remove()
  },
)

test.serial(
  'containers of a pod with shareProcessNamespace see each other, and each may end and come again',
  async (t) => {
    const { kubelet, image: pushed } = cluster
    const image = pushed.reference
    const pid = { pid: NamespaceMode.POD }
    const shared = await cluster.generate(JSON.stringify(SHARED(image)))
    const pod = await kubelet.runPod({ name: 'shared', initdata: shared, linux: podNamespaces(pid) })
    const linux = namespaces(pid)
    const peer = await pod.run('peer', image, { command: ['/bin/sleep', '12345'], linux })
    const look = await pod.run('look', image, { command: ['/bin/sh', '-c', WORDS], linux })
    t.is((await look.exited()).exitCode, 0)
    const seen = look.log().join('\n')
    t.true(seen.includes('12345'), seen)
    t.false(seen.includes('/usr/lib/caisson/agent.js'), seen)
    // None of them is the first process, whose end would be the end of all.
    await look.remove()
    const again = await pod.run('look', image, { command: ['/bin/sh', '-c', WORDS], linux, attempt: 1 })
    t.is((await again.exited()).exitCode, 0)
    t.is((await peer.status()).state, ContainerState.CONTAINER_RUNNING)
    await peer.stop(0)
    t.is((await peer.status()).exitCode, 137)
    await pod.remove()
    // A policy that does not say so shares nothing.
    const apart = await kubelet.runPod({ name: 'apart', initdata, linux: podNamespaces(pid) })
    await t.throwsAsync(apart.run('silent', image, { linux }), { message: /ERR_POLICY_DENIED/ })
    await apart.remove()
  },
)

function podNamespaces(options: { readonly pid: NamespaceMode }) {
  return { securityContext: { namespaceOptions: options } }
}

function namespaces(options: { readonly pid: NamespaceMode; readonly targetId?: string }) {
  return create(LinuxContainerConfigSchema, { securityContext: { namespaceOptions: options } })
}

function limits(memoryLimitInBytes: bigint) {
  return {
    $typeName: 'runtime.v1.LinuxContainerConfig' as const,
    resources: {
      $typeName: 'runtime.v1.LinuxContainerResources' as const,
      memoryLimitInBytes,
      cpuQuota: 50_000n,
      cpuPeriod: 100_000n,
      cpuShares: 512n,
      oomScoreAdj: 0n,
    },
  }
}

function runAs(uid: bigint, base: Partial<ReturnType<typeof limits>> = {}) {
  return {
    $typeName: 'runtime.v1.LinuxContainerConfig' as const,
    ...base,
    securityContext: {
      $typeName: 'runtime.v1.LinuxContainerSecurityContext' as const,
      privileged: false,
      runAsUser: { $typeName: 'runtime.v1.Int64Value' as const, value: uid },
      readonlyRootfs: false,
      supplementalGroups: [],
      noNewPrivs: false,
    },
  }
}
