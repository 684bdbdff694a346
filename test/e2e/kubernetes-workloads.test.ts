/** What pods do on Kubernetes, over CRI as the kubelet asks for it. docs/conformance.md lists the cases. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { ContainerState } from '../fixtures/cri/gen/cri_pb.ts'
import { startCluster } from '../fixtures/kubernetes/cluster.ts'

const LOOP = "trap 'exit 5' TERM; echo waiting; while :; do sleep 1; done"
const DEAF = "trap '' TERM; echo deaf; while :; do sleep 1; done"
const LOOK = 'id; pwd; env; hostname; cat /etc/resolv.conf; echo kept > /data/file; cat /data/file'
const GREEDY = 'exec dd if=/dev/zero of=/dev/null bs=200M count=1'
const LIMITS = 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max'
const SIZE = 'read line; echo "got $line"; stty size'
const MIB = 1024n * 1024n

const POLICY = (image: string): string => `
  - { name: once, image: ${image}, logs: allow }
  - name: shell
    image: ${image}
    args: [/bin/sh, -c, ${JSON.stringify(LOOP)}]
    logs: allow
    stdin: true
    terminal: true
    exec:
      - [/bin/sh, -c, ${JSON.stringify(LIMITS)}]
      - [/bin/sh, -c, ${JSON.stringify(SIZE)}]
      - [/bin/sleep, "60"]
      - [/bin/false]
  - { name: deaf, image: ${image}, args: [/bin/sh, -c, ${JSON.stringify(DEAF)}], logs: allow }
  - name: look
    image: ${image}
    args: [/bin/sh, -c, ${JSON.stringify(LOOK)}]
    env: { B: two }
    user: "0"
    workingDir: /srv
    logs: allow
    mounts:
      - { kind: scratch, path: /data }
  - { name: greedy, image: ${image}, args: [/bin/sh, -c, ${JSON.stringify(GREEDY)}], user: "0", logs: allow }
  - { name: silent, image: ${image} }
`

test.serial(
  'containers of a pod come and go: one after the other, several at once, and the last one again',
  async (t) => {
    const { kubelet, image: pushed, initdata } = await startCluster(t, POLICY)
    const image = pushed.reference
    await kubelet.pull(image)
    const pod = await kubelet.runPod({ name: 'many', initdata })
    // An init container: it ends before the others start, and is kept until it is removed.
    const init = await pod.run('once', image)
    t.is((await init.exited()).exitCode, 7)
    t.is((await init.status()).reason, 'Error')
    const [shell, deaf] = await Promise.all([
      pod.run('shell', image, { command: ['/bin/sh', '-c', LOOP] }),
      pod.run('deaf', image, { command: ['/bin/sh', '-c', DEAF] }),
    ])
    await shell.logged(/waiting/)
    await deaf.logged(/deaf/)
    // SIGTERM is heard by one and not by the other, who is killed when its time is up.
    await shell.stop(60)
    t.is((await shell.status()).exitCode, 5)
    await deaf.stop(1)
    t.is((await deaf.status()).exitCode, 137)
    for (const container of [init, shell, deaf]) await container.remove()
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
    const { kubelet, folder, image: pushed, initdata } = await startCluster(t, POLICY)
    const image = pushed.reference
    await kubelet.pull(image)
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
  const { kubelet, containerd, image: pushed, initdata } = await startCluster(t, POLICY)
  const image = pushed.reference
  await kubelet.pull(image)
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
  await pod.remove()
})

test.serial('exec and attach carry input, terminals, sizes and exit codes', async (t) => {
  const { kubelet, image: pushed, initdata } = await startCluster(t, POLICY)
  const image = pushed.reference
  await kubelet.pull(image)
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
