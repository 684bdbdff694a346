/** What pods hold of the host: each process's proportional share (PSS), with one pod, ten and thirty. */
import { memoryOf as processesOf } from '../process-memory.ts'
import { BenchNode, SIDES, type Side } from './node.ts'

export interface PodMemory {
  readonly side: Side
  readonly pods: number
  /** Program → MiB of PSS, shared among the pods. */
  readonly perPod: Readonly<Record<string, number>>
  /** The node's daemon, all of it. MiB of PSS. */
  readonly daemon: number
}

/** Starting more at a time only makes them wait for each other. */
const AT_ONCE = 4
const PROGRAMS = [/^containerd-shim-/, /^caisson-pod$/, /^qemu-system-/]

export async function benchMemory(
  counts: readonly number[],
  say: (line: string) => void,
): Promise<readonly PodMemory[]> {
  await using node = await BenchNode.start()
  const figures: PodMemory[] = []
  for (const pods of counts) {
    for (const side of SIDES) {
      say(`memory of ${pods} pods of ${side}`)
      figures.push(await measure(node, side, pods))
    }
  }
  return figures
}

async function measure(node: BenchNode, side: Side, count: number): Promise<PodMemory> {
  const names = Array.from({ length: count }, (_, index) => `m${count}-${side}-${index}`)
  const start = async (name: string) => {
    const pod = await node.runPod(side, name)
    await (await node.run(side, pod, 'wait')).logged(/ready/)
    return pod
  }
  const pods = []
  for (let index = 0; index < count; index += AT_ONCE) {
    pods.push(...(await Promise.all(names.slice(index, index + AT_ONCE).map(start))))
  }
  const processes = processesOf(`${node.cluster.containerd.folder}/`)
  const perPod: Record<string, number> = {}
  for (const { name, pssMib } of processes) {
    if (PROGRAMS.some((program) => program.test(name))) perPod[name] = (perPod[name] ?? 0) + pssMib / count
  }
  const daemon = processes.reduce((sum, { name, pssMib }) => sum + (name === 'node' ? pssMib : 0), 0)
  for (let index = 0; index < count; index += AT_ONCE) {
    await Promise.all(pods.slice(index, index + AT_ONCE).map((pod) => pod.remove()))
  }
  return { side, pods: count, perPod, daemon }
}

export function printMemory(figures: readonly PodMemory[]): void {
  for (const { side, pods, perPod, daemon } of figures) {
    const programs = Object.entries(perPod).map(([name, mib]) => `${name} ${mib.toFixed(2)} MiB`)
    const beside = side === 'caisson' ? `; the node’s daemon ${daemon.toFixed(0)} MiB in all` : ''
    console.log(`${pods} pods of ${side}, PSS of each: ${programs.join(', ')}${beside}`)
  }
  console.log('  target: at most 4 MiB for each pod beside QEMU, and one daemon')
}
