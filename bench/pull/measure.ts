/** What a program and everything it starts costs: wall time, processor time, and memory at its peak. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'

export interface Cost {
  readonly wallS: number
  readonly cpuS: number
  /** Resident, all processes together, sampled. */
  readonly peakMib: number
}

const SAMPLE_MS = 20
/** sysconf(_SC_CLK_TCK) on Linux. */
const TICKS = 100

/** @param also a process that works for it and outlives it */
export async function measure(program: string, args: readonly string[], also?: number): Promise<Cost> {
  const alsoBefore = also === undefined ? 0 : cpuSeconds(also)
  const cpuBefore = ownChildren()
  const before = performance.now()
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.on('data', (text) => {
    said = (said + text).slice(-2000)
  })
  let peak = 0
  const sample = (): void => {
    const roots = [child.pid, also].filter((pid) => pid !== undefined)
    peak = Math.max(peak, residentMib(roots))
  }
  const timer = setInterval(sample, SAMPLE_MS)
  const [code] = await once(child, 'close')
  clearInterval(timer)
  const wallS = (performance.now() - before) / 1000
  if (code !== 0) throw new Error(`${program} ${args.join(' ')}: exit ${code}: ${said}`)
  const cpuS = ownChildren() - cpuBefore + (also === undefined ? 0 : cpuSeconds(also) - alsoBefore)
  return { wallS, cpuS, peakMib: peak }
}

/** Of children that have ended, and theirs. */
function ownChildren(): number {
  return Number(stat(process.pid)[13]) / TICKS + Number(stat(process.pid)[14]) / TICKS
}

function cpuSeconds(pid: number): number {
  const fields = stat(pid)
  return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0) / TICKS
}

/** Fields of /proc/PID/stat from the third on: the second may hold spaces. */
function stat(pid: number): string[] {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
  return text.slice(text.lastIndexOf(')') + 2).split(' ')
}

/** Only the trees themselves are looked at: a look at every process of the machine would take a tenth of a core from them. */
function residentMib(roots: readonly number[]): number {
  return roots.reduce((sum, root) => sum + treeMib(root, undefined), 0)
}

interface Resident {
  readonly mib: number
  readonly virtual: string
}

function treeMib(pid: number, parent: Resident | undefined): number {
  try {
    const fields = stat(pid)
    const own = { mib: (Number(fields[21]) * 4096) / 1024 / 1024, virtual: `${fields[20]}` }
    // A child that is not another program yet lives in its parent's memory (vfork), which counts once.
    const isBorrowed = own.virtual === parent?.virtual && Math.abs(own.mib - parent.mib) < 1
    const children = readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
      readFileSync(`/proc/${pid}/task/${thread}/children`, 'latin1').split(' ').filter(Boolean),
    )
    return children.reduce((sum, child) => sum + treeMib(Number(child), own), isBorrowed ? 0 : own.mib)
  } catch {
    // The process ended while we looked.
    return 0
  }
}
