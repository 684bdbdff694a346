/** How long the steps of a pod's life take, where the time goes, and what the same costs with runc. */
import { podIdOf } from '#host-shim/node/pod-record'
import { AgentClient } from '#host-shim/pod/agent-client'
import { podPaths } from '#host-shim/pod/state-dir'
import type { KubernetesContainer } from '#test/fixtures/kubernetes/kubelet'
import { median } from '../statistics.ts'
import { BenchNode, FORKS, SIDES, type Side, STREAM_MIB } from './node.ts'

/** Step → milliseconds. */
export type Steps = Readonly<Record<string, number>>

export interface PodTimes {
  readonly rounds: number
  /** Medians of the rounds. */
  readonly sandbox: Steps
  readonly container: Steps
  readonly exec: Steps
  readonly removal: Steps
  /** MiB a second of a container's standard output into containerd's log. */
  readonly logMibs: Readonly<Record<Side, number>>
}

const TRUE = ['/bin/true']
const EXECS = 5

export async function benchTimes(rounds: number, say: (line: string) => void): Promise<PodTimes> {
  await using node = await BenchNode.start()
  const sandbox = new StepTimes()
  const container = new StepTimes()
  const exec = new StepTimes()
  const removal = new StepTimes()
  const logs = { caisson: [] as number[], runc: [] as number[] }
  // The first pod of a daemon waits for the guest's files to be checked, once.
  for (const side of SIDES) await (await node.runPod(side, `first-${side}`)).remove()
  for (let round = 0; round < rounds; round++) {
    for (const side of SIDES) {
      say(`${side}, round ${round + 1} of ${rounds}`)
      const name = `${side}${round}`
      const before = await node.seconds()
      const booted = await timed(() => node.runPod(side, name))
      const between = await node.seconds()
      const created = await timed(() => node.create(side, booted.value, 'wait'))
      const started = await timed(() => created.value.start())
      const after = await node.seconds()
      if (side === 'caisson') {
        addSandbox(sandbox, booted.ms, since(before, between))
        addContainer(container, created.ms, started.ms, since(between, after))
      } else {
        sandbox.add('runc: RunPodSandbox', booted.ms)
        container.add('runc: CreateContainer', created.ms)
        container.add('runc: StartContainer', started.ms)
      }
      await ready(created.value)
      await measureExec(node, side, created.value, exec)
      if (side === 'caisson') await measureAgent(node, booted.value.id, created.value.id, exec)
      const fork = await node.run(side, booted.value, 'fork')
      await fork.exited()
      exec.add(`${side}: a fork and exec inside`, forkMs(node, name))
      const pour = await node.run(side, booted.value, 'pour')
      await pour.exited()
      logs[side].push(logMibs(node, name))
      removal.add(`${side}: StopPodSandbox and RemovePodSandbox`, (await timed(() => booted.value.remove())).ms)
    }
  }
  return {
    rounds,
    sandbox: sandbox.medians(),
    container: container.medians(),
    exec: exec.medians(),
    removal: removal.medians(),
    logMibs: { caisson: median(logs.caisson), runc: median(logs.runc) },
  }
}

function addSandbox(steps: StepTimes, totalMs: number, took: (name: string) => number): void {
  const at = (stage: string): number => took(`boot ${stage}`)
  steps.add('RunPodSandbox', totalMs)
  steps.add('  containerd: CNI, snapshot, start of the shim', totalMs - took('rpc create') - took('rpc start'))
  steps.add('  tap and redirection, plan', took('rpc create') - at('ready'))
  steps.add('  disks', at('vmm'))
  steps.add('  QEMU answers', at('kernel') - at('vmm'))
  steps.add('  kernel', at('init') - at('kernel'))
  steps.add('  init', at('agent') - at('init'))
  steps.add('  agent answers', at('ready') - at('agent'))
  steps.add('  network, attestation and policy in the guest', took('rpc start'))
}

function addContainer(steps: StepTimes, createMs: number, startMs: number, took: (name: string) => number): void {
  steps.add('CreateContainer and StartContainer', createMs + startMs)
  steps.add('  containerd: CreateContainer', createMs)
  steps.add('  task create: rest of the pull, mounts, crun create', took('rpc create'))
  steps.add('  task start: streams, crun start', took('rpc start'))
  steps.add('  containerd: the rest of StartContainer', startMs - took('rpc create') - took('rpc start'))
}

async function measureExec(node: BenchNode, side: Side, container: KubernetesContainer, steps: StepTimes) {
  const { containerd } = node.cluster
  for (let turn = 0; turn < EXECS; turn++) {
    const before = await node.seconds()
    const { ms } = await timed(() => container.exec(TRUE))
    const took = since(before, await node.seconds())
    steps.add(`${side}: ExecSync of true`, ms)
    if (side === 'caisson') {
      const known = ['exec', 'start', 'delete'].map((method) => took(`rpc ${method}`))
      steps.add('  task exec: the daemon writes it down', known[0] ?? 0)
      steps.add('  task start: the guest starts it, streams', known[1] ?? 0)
      steps.add('  task delete', known[2] ?? 0)
      steps.add('  it runs and its end is told; containerd', ms - known.reduce((sum, one) => sum + one, 0))
    }
    const id = `ctr${turn}`
    const ctr = await timed(async () => containerd.ctr('task', 'exec', '--exec-id', id, container.id, ...TRUE))
    steps.add(`${side}: ctr task exec of true`, ctr.ms)
  }
  steps.add('ctr itself: ctr version', (await timed(async () => containerd.ctr('version'))).ms)
}

/** Straight to the agent, as the daemon asks it. */
async function measureAgent(node: BenchNode, podId: string, containerId: string, steps: StepTimes): Promise<void> {
  const agent = await AgentClient.connect(podPaths(node.cluster.containerd.state, podIdOf(podId)).vsock)
  try {
    for (let turn = 0; turn < EXECS; turn++) {
      steps.add('agent: a question it answers from memory', (await timed(() => agent.getStatus())).ms)
      const execId = `agent${turn}`
      const request = { containerId, execId, args: TRUE, stdin: false, terminal: false }
      steps.add('agent: exec, crun with it', (await timed(() => agent.exec(request))).ms)
      await agent.wait({ containerId, execId })
      await agent.delete({ containerId, execId })
    }
  } finally {
    agent.close()
  }
}

async function ready(container: KubernetesContainer): Promise<void> {
  await container.logged(/ready/)
}

function forkMs(node: BenchNode, pod: string): number {
  const lines = node.logOf(pod, 'fork')
  const at = (text: string): number => lines.find((line) => line.text.startsWith(text))?.atMs ?? Number.NaN
  return (at('end') - at('begin')) / FORKS
}

/** Between the first and the last line that containerd wrote: what came between is known by its length. */
function logMibs(node: BenchNode, pod: string): number {
  const lines = node.logOf(pod, 'pour')
  const bytes = lines.slice(1).reduce((sum, { text }) => sum + text.length, 0)
  const took = (lines.at(-1)?.atMs ?? Number.NaN) - (lines[0]?.atMs ?? Number.NaN)
  if (bytes < (STREAM_MIB - 1) * 2 ** 20) throw new Error(`the log of ${pod} has ${bytes} bytes only`)
  return bytes / 2 ** 20 / (took / 1000)
}

function since(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): (name: string) => number {
  return (name) => ((after.get(name) ?? 0) - (before.get(name) ?? 0)) * 1000
}

async function timed<T>(work: () => Promise<T>): Promise<{ readonly value: T; readonly ms: number }> {
  const start = performance.now()
  const value = await work()
  return { value, ms: performance.now() - start }
}

class StepTimes {
  readonly #times = new Map<string, number[]>()

  add(step: string, ms: number): void {
    const known = this.#times.get(step)
    if (known === undefined) this.#times.set(step, [ms])
    else known.push(ms)
  }

  medians(): Steps {
    return Object.fromEntries([...this.#times].map(([step, times]) => [step, median(times)]))
  }
}

export function printTimes({ rounds, sandbox, container, exec, removal, logMibs: mibs }: PodTimes): void {
  console.log(`pods, medians of ${rounds} rounds:`)
  for (const steps of [sandbox, container, exec, removal]) {
    for (const [step, ms] of Object.entries(steps)) console.log(`  ${ms.toFixed(1).padStart(8)} ms  ${step}`)
  }
  console.log(`standard output into the log: ${mibs.caisson.toFixed(0)} MiB/s; runc’s ${mibs.runc.toFixed(0)} MiB/s`)
}
