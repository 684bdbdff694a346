/** Pods through containerd: how long they take by step, what an exec costs beside runc's, and what they hold of the host. */
import { startCluster } from '#test/fixtures/kubernetes/cluster'
import type { KubernetesContainer, KubernetesPod } from '#test/fixtures/kubernetes/kubelet'
import { FileScope } from '#test/fixtures/kubernetes/scope'
import { memoryOf as processesOf } from './process-memory.ts'
import { median } from './statistics.ts'

const STREAM_MIB = 64
const POUR = `dd if=/dev/zero bs=1M count=${STREAM_MIB} 2>/dev/null`
const WAIT = 'echo ready; while :; do sleep 1; done'
const TRUE = ['/bin/true']

export interface PodMemory {
  readonly pods: number
  /** Each pod's share, MiB PSS. */
  readonly relay: number
  readonly backend: number
  readonly vm: number
  /** All of it. */
  readonly daemon: number
}

export interface KubernetesFigures {
  readonly rounds: number
  /** Medians, milliseconds. */
  readonly runPodMs: number
  readonly createMs: number
  readonly startMs: number
  readonly removeMs: number
  readonly execMs: { readonly caisson: number; readonly runc: number }
  /** MiB a second of a container's standard output into containerd's log. */
  readonly logMibs: { readonly caisson: number; readonly runc: number }
  readonly memory: readonly PodMemory[]
}

/** @param counts pods at once whose memory is measured */
export async function benchKubernetes(
  rounds: number,
  say: (line: string) => void,
  counts: readonly number[] = [1, 10],
): Promise<KubernetesFigures> {
  await using undo = new AsyncDisposableStack()
  const scope = new FileScope()
  undo.defer(() => scope.end())
  const policy = (image: string): string => `
  - { name: wait, image: ${image}, args: [/bin/sh, -c, ${JSON.stringify(WAIT)}], logs: allow, exec: [[/bin/true]] }
  - { name: pour, image: ${image}, args: [/bin/sh, -c, ${JSON.stringify(POUR)}], logs: allow, max: 64 }`
  const { kubelet, containerd, image, other, initdata } = await startCluster(scope, policy)
  await kubelet.pull(image.reference)
  await kubelet.pull(other.reference)
  const times = { run: [] as number[], create: [] as number[], start: [] as number[], remove: [] as number[] }
  const command = ['/bin/sh', '-c', WAIT]
  const logs = { caisson: [] as number[], runc: [] as number[] }
  const execs = { caisson: [] as number[], runc: [] as number[] }
  for (let round = 0; round < rounds; round++) {
    say(`pod, round ${round + 1} of ${rounds}`)
    const pod = await timed(times.run, () => kubelet.runPod({ name: `p${round}`, initdata }))
    const wait = await timed(times.create, () => pod.create('wait', image.reference, { command }))
    await timed(times.start, () => wait.start())
    await measure(pod, wait, image.reference, 'caisson')
    await timed(times.remove, () => pod.remove())
    const plain = await kubelet.runPod({ name: `r${round}`, handler: 'runc' })
    await measure(plain, await plain.run('wait', other.reference, { command }), other.reference, 'runc')
    await plain.remove()
  }
  const memory: PodMemory[] = []
  for (const pods of counts) memory.push(await memoryOf(pods))
  return {
    rounds,
    runPodMs: median(times.run),
    createMs: median(times.create),
    startMs: median(times.start),
    removeMs: median(times.remove),
    execMs: { caisson: median(execs.caisson), runc: median(execs.runc) },
    logMibs: { caisson: median(logs.caisson), runc: median(logs.runc) },
    memory,
  }

  async function measure(
    pod: KubernetesPod,
    wait: KubernetesContainer,
    reference: string,
    side: 'caisson' | 'runc',
  ): Promise<void> {
    await wait.logged(/ready/)
    for (let turn = 0; turn < 5; turn++) await timed(execs[side], () => wait.exec(TRUE))
    const took: number[] = []
    await timed(took, async () => (await pod.run('pour', reference, { command: ['/bin/sh', '-c', POUR] })).exited())
    logs[side].push((STREAM_MIB * 1000) / (took[0] ?? Number.NaN))
  }

  async function memoryOf(count: number): Promise<PodMemory> {
    say(`memory of ${count} pods`)
    const names = Array.from({ length: count }, (_, index) => `m${count}-${index}`)
    const pods = await Promise.all(names.map((name) => kubelet.runPod({ name, initdata })))
    const share = (program: RegExp): number =>
      processesOf(`${containerd.folder}/`).reduce(
        (sum, { name, pssMib }) => sum + (program.test(name) ? pssMib : 0),
        0,
      ) / count
    const figures = {
      pods: count,
      relay: share(/^containerd-shim-caisson-v2$/),
      backend: share(/^caisson-pod$/),
      vm: share(/^qemu-system-/),
      daemon: share(/^node$/) * count,
    }
    await Promise.all(pods.map((pod) => pod.remove()))
    return figures
  }
}

async function timed<T>(into: number[], work: () => Promise<T>): Promise<T> {
  const start = performance.now()
  const result = await work()
  into.push(performance.now() - start)
  return result
}

export function printKubernetes(figures: KubernetesFigures): void {
  const { rounds, runPodMs, createMs, startMs, removeMs, execMs, logMibs, memory } = figures
  const ms = (value: number): string => `${value.toFixed(0)} ms`
  console.log(
    `pod (median of ${rounds}): RunPodSandbox ${ms(runPodMs)}, CreateContainer ${ms(createMs)}, StartContainer with pull ${ms(startMs)}, removal ${ms(removeMs)}`,
  )
  console.log(`exec of true: ${ms(execMs.caisson)}; runc’s ${ms(execMs.runc)}`)
  console.log(
    `standard output into the log: ${logMibs.caisson.toFixed(0)} MiB/s; runc’s ${logMibs.runc.toFixed(0)} MiB/s`,
  )
  for (const { pods, relay, backend, vm, daemon } of memory) {
    console.log(
      `${pods} pods: relay ${relay.toFixed(2)} and caisson-pod ${backend.toFixed(2)} MiB PSS for each (target at most 4 together), VM ${vm.toFixed(0)} MiB, daemon ${daemon.toFixed(0)} MiB`,
    )
  }
}
