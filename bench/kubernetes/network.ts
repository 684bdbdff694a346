/** TCP between a pod and its node: through tap, redirection and the VM, beside a veth alone. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { median } from '../statistics.ts'
import { BenchNode, SIDES, type Side } from './node.ts'

const MIB = 2 ** 20
/** Seconds either way: a guest of an emulator is a hundred times slower than a veth. */
const BYTES = { caisson: 64 * MIB, runc: 4096 * MIB }
const DIRECTIONS = { 'from the pod': ['read', '7001'], 'to the pod': ['write', '7002'] } as const

export interface NetworkFigures {
  readonly rounds: number
  /** Direction → MiB a second, medians. */
  readonly mibs: Readonly<Record<Side, Readonly<Record<string, number>>>>
}

export async function benchNetwork(rounds: number, say: (line: string) => void): Promise<NetworkFigures> {
  await using node = await BenchNode.start()
  const rates = { caisson: new Map<string, number[]>(), runc: new Map<string, number[]>() }
  const addresses = new Map<Side, string>()
  for (const side of SIDES) {
    const pod = await node.runPod(side, `net-${side}`)
    await (await node.run(side, pod, 'stream')).logged(/listening/)
    addresses.set(side, (await pod.status())?.network?.ip ?? '')
  }
  for (let round = 0; round < rounds; round++) {
    say(`network, round ${round + 1} of ${rounds}`)
    for (const side of SIDES) {
      for (const [direction, [mode, port]] of Object.entries(DIRECTIONS)) {
        const words = [mode, addresses.get(side) ?? '', port, String(BYTES[side])]
        const { stdout } = await promisify(execFile)('nsenter', [
          `--net=${node.cluster.namespace}`,
          node.stream,
          ...words,
        ])
        const known = rates[side].get(direction) ?? []
        rates[side].set(direction, [...known, BYTES[side] / MIB / (Number(stdout) / 1e9)])
      }
    }
  }
  const medians = (side: Side) =>
    Object.fromEntries([...rates[side]].map(([direction, values]) => [direction, median(values)]))
  return { rounds, mibs: { caisson: medians('caisson'), runc: medians('runc') } }
}

export function printNetwork({ rounds, mibs }: NetworkFigures): void {
  for (const direction of Object.keys(DIRECTIONS)) {
    const [ours = Number.NaN, theirs = Number.NaN] = SIDES.map((side) => mibs[side][direction])
    console.log(
      `TCP ${direction} (median of ${rounds}): ${ours.toFixed(0)} MiB/s through tap and VM; ${theirs.toFixed(0)} MiB/s through runc’s veth`,
    )
  }
}
