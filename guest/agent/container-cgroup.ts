/**
 * The control group that all containers lie in. It may not take the whole memory, so containers that use too much are
 * ended by the kernel while the agent, which watches over them, is not.
 */
import { UnavailableError } from '#protocol/errors'
import type { Files } from '../platform/platform.ts'
import { MAX_PROC_FILE_BYTES, RESERVED_MEMORY_BYTES } from './limits.ts'

const ROOT = '/sys/fs/cgroup'
/** Of all containers' cgroups, below the root. */
export const CONTAINERS_CGROUP = '/caisson'
const CONTROLLERS = '+cpu +memory +pids'

export async function prepareContainerCgroup(files: Files): Promise<void> {
  const dir = `${ROOT}${CONTAINERS_CGROUP}`
  await files.control(`${ROOT}/cgroup.subtree_control`, CONTROLLERS)
  await files.mkdir(dir, 0o755)
  await files.control(`${dir}/cgroup.subtree_control`, CONTROLLERS)
  const memory = new TextDecoder().decode(await files.read('/proc/meminfo', MAX_PROC_FILE_BYTES))
  await files.control(`${dir}/memory.max`, `${containerMemory(memory)}`)
}

/** Bytes for all containers together. @param meminfo text of /proc/meminfo, proc_meminfo(5) */
export function containerMemory(meminfo: string): number {
  const total = Number(/^MemTotal: +([0-9]+) kB$/m.exec(meminfo)?.[1] ?? Number.NaN) * 1024
  if (!Number.isFinite(total)) throw new UnavailableError('ERR_MEMORY_UNKNOWN', 'the kernel does not tell its memory')
  // A machine too small to reserve that much shares what it has.
  return Math.max(total - RESERVED_MEMORY_BYTES, Math.floor(total / 2))
}
