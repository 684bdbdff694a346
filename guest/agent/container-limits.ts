/** Limits of a container that runs, and its standstill, through the files of its cgroup (cgroup-v2.rst). */
import type { Files } from '../platform/platform.ts'
import type { ResourceLimits } from './requests.ts'

const ROOT = '/sys/fs/cgroup'
const DEFAULT_PERIOD_US = 100_000

/** Zero leaves a limit as it is. */
export async function changeLimits(files: Files, cgroupPath: string, limits: ResourceLimits): Promise<void> {
  const { memoryBytes, cpuQuotaUs, cpuPeriodUs, cpuShares, pids } = limits
  const write = (name: string, value: string) => files.control(`${ROOT}${cgroupPath}/${name}`, value)
  // Swap is none: the limit of memory is the limit of both.
  if (memoryBytes > 0) await write('memory.max', String(memoryBytes))
  if (cpuQuotaUs > 0) await write('cpu.max', `${cpuQuotaUs} ${cpuPeriodUs > 0 ? cpuPeriodUs : DEFAULT_PERIOD_US}`)
  if (cpuShares > 0) await write('cpu.weight', String(weightOf(cpuShares)))
  if (pids > 0) await write('pids.max', String(pids))
}

export async function freeze(files: Files, cgroupPath: string, frozen: boolean): Promise<void> {
  await files.control(`${ROOT}${cgroupPath}/cgroup.freeze`, frozen ? '1' : '0')
}

/** From cgroup v1's shares (2 to 262144) to v2's weight (1 to 10000), as OCI runtimes convert them. */
export function weightOf(shares: number): number {
  const bounded = Math.min(Math.max(shares, 2), 262_144)
  return 1 + Math.floor(((bounded - 2) * 9999) / 262_142)
}
