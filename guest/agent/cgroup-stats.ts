/** What a container uses, from the files of its cgroup (Documentation/admin-guide/cgroup-v2.rst). */
import type { Files } from '../platform/platform.ts'
import { MAX_PROC_FILE_BYTES } from './limits.ts'

const ROOT = '/sys/fs/cgroup'

export interface CgroupStats {
  readonly cpuUsageUs: bigint
  readonly cpuUserUs: bigint
  readonly cpuSystemUs: bigint
  readonly memoryBytes: bigint
  /** 0: none. */
  readonly memoryLimitBytes: bigint
  readonly pids: bigint
}

/** All zero once the cgroup is gone. */
export async function readStats(files: Files, cgroupPath: string): Promise<CgroupStats> {
  const text = (name: string) => readText(files, `${ROOT}${cgroupPath}/${name}`)
  const cpu = parseFlat(await text('cpu.stat'))
  return {
    cpuUsageUs: cpu.get('usage_usec') ?? 0n,
    cpuUserUs: cpu.get('user_usec') ?? 0n,
    cpuSystemUs: cpu.get('system_usec') ?? 0n,
    memoryBytes: parseAmount(await text('memory.current')),
    memoryLimitBytes: parseAmount(await text('memory.max')),
    pids: parseAmount(await text('pids.current')),
  }
}

/** Whether the kernel killed a process of the container for want of memory. */
export async function wasOomKilled(files: Files, cgroupPath: string): Promise<boolean> {
  const events = parseFlat(await readText(files, `${ROOT}${cgroupPath}/memory.events`))
  return (events.get('oom_kill') ?? 0n) > 0n
}

/** "flat keyed" files: one `name value` per line. */
export function parseFlat(text: string): ReadonlyMap<string, bigint> {
  const values = new Map<string, bigint>()
  for (const line of text.split('\n')) {
    const match = /^([a-z_.]+) ([0-9]+)$/.exec(line)
    if (match?.[1] !== undefined && match[2] !== undefined) values.set(match[1], BigInt(match[2]))
  }
  return values
}

/** "max" and an absent file are 0. */
function parseAmount(text: string): bigint {
  const digits = text.trim()
  return /^[0-9]+$/.test(digits) ? BigInt(digits) : 0n
}

async function readText(files: Files, path: string): Promise<string> {
  const bytes = await files.readIfExists(path, MAX_PROC_FILE_BYTES)
  return bytes === undefined ? '' : new TextDecoder().decode(bytes)
}
