/**
 * Which process a pid means. Numbers are reused, so a pid is believed only together with the time the kernel started the
 * process, and only within one boot of the machine.
 */
import { readdir, readFile } from 'node:fs/promises'

export interface ProcessIdentity {
  readonly pid: number
  /** Clock ticks since boot (proc(5), /proc/pid/stat field 22). */
  readonly startTicks: number
}

/** Undefined when no such process runs; a zombie counts as gone. */
export async function identifyProcess(pid: number): Promise<ProcessIdentity | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  if (stat === undefined) return undefined
  // Field 2 is the program's name in parentheses and may hold anything, so fields are counted from its end.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  if (fields[0] === 'Z' || fields[0] === 'X') return undefined
  return { pid, startTicks: Number(fields[19]) }
}

export async function isSameProcess(identity: ProcessIdentity): Promise<boolean> {
  const now = await identifyProcess(identity.pid)
  return now?.startTicks === identity.startTicks
}

export async function bootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
}

/**
 * Processes of a pod by what they are: one of our programs with a path inside `directory` among its arguments. Finds those
 * too that were started just before a crash and never recorded.
 */
export function findPodProcesses(directory: string): Promise<readonly ProcessIdentity[]> {
  return findProcesses(directory, ([program = '']) =>
    // swtpm_setup and its helpers too: a TPM may have been in the making.
    /(?:^|\/)(?:caisson-pod|qemu-system-[a-z0-9_]+|swtpm(?:_[a-z]+)?)$/.test(program),
  )
}

/** Processes with a path inside `directory` among their arguments that `isOurs` recognises by their whole command line. */
export async function findProcesses(
  directory: string,
  isOurs: (commandLine: readonly string[]) => boolean,
): Promise<readonly ProcessIdentity[]> {
  const found: ProcessIdentity[] = []
  for (const name of await readdir('/proc')) {
    if (!/^[0-9]+$/.test(name)) continue
    const text = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '')
    const commandLine = text.split('\0')
    if (!isOurs(commandLine) || !commandLine.slice(1).some((arg) => arg.includes(`${directory}/`))) continue
    const identity = await identifyProcess(Number(name))
    if (identity !== undefined) found.push(identity)
  }
  return found
}

/** SIGTERM, then SIGKILL after `graceMs`; resolves when the process is gone. A pid that means another process is left alone. */
export async function endProcess(identity: ProcessIdentity, graceMs: number): Promise<void> {
  for (const [signal, waitMs] of [
    ['SIGTERM', graceMs],
    ['SIGKILL', 10_000],
  ] as const) {
    if (!(await isSameProcess(identity))) return
    try {
      process.kill(identity.pid, signal)
    } catch {
      return // it ended in between
    }
    // Not our child, so there is nothing to wait on but the process table.
    for (const deadline = Date.now() + waitMs; Date.now() < deadline; ) {
      if (!(await isSameProcess(identity))) return
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
  }
}
