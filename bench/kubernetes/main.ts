/** Pods through containerd, in parts that can be run one by one: each starts a node of its own. */
import { benchMemory, printMemory } from './memory.ts'
import { benchNetwork, printNetwork } from './network.ts'
import { benchTimes, printTimes } from './times.ts'

export const PARTS = ['times', 'network', 'memory'] as const
type Part = (typeof PARTS)[number]

export interface KubernetesBench {
  readonly rounds: number
  readonly say: (line: string) => void
  /** How many pods at once, for their memory; thirty hold about 12 GiB. */
  readonly counts: readonly number[]
  readonly parts: readonly Part[]
  readonly write: (name: string, figures: unknown) => void
}

export function partsOf(wish: string | undefined): readonly Part[] {
  const parts = PARTS.filter((part) => wish === undefined || part === wish)
  if (parts.length === 0) throw new Error(`--part is one of ${PARTS.join(', ')}`)
  return parts
}

export async function benchKubernetes({ rounds, say, counts, parts, write }: KubernetesBench): Promise<void> {
  if (parts.includes('times')) {
    const times = await benchTimes(rounds, say)
    printTimes(times)
    write('kubernetes-times.json', times)
  }
  if (parts.includes('network')) {
    const network = await benchNetwork(rounds, say)
    printNetwork(network)
    write('kubernetes-network.json', network)
  }
  if (parts.includes('memory')) {
    const memory = await benchMemory(counts, say)
    printMemory(memory)
    write('kubernetes-memory.json', memory)
  }
}
