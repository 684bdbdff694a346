/** Memory of host processes, from the kernel's own accounts. */
import { readdirSync, readFileSync } from 'node:fs'

export interface ProcessMemory {
  readonly name: string
  /** Share of shared pages counted once over all processes. MiB. */
  readonly pssMib: number
  readonly anonymousMib: number
}

/** Processes whose command line holds `mark` (a pod's state directory), and their children. */
export function memoryOf(mark: string): ProcessMemory[] {
  const processes: ProcessMemory[] = []
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const commandLine = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
      if (!commandLine.includes(mark)) continue
      const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
      const mib = (field: string): number =>
        Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(rollup)?.[1] ?? 0) / 1024
      const name = commandLine.split('\0')[0]?.split('/').at(-1) ?? pid
      processes.push({ name, pssMib: mib('Pss'), anonymousMib: mib('Anonymous') })
    } catch {
      // The process ended while we looked.
    }
  }
  return processes
}
