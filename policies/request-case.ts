/** A request as a `create` step of a file of cases (`PolicyTest`), so that it can be asked of a policy again. */
import { type ContainerRequest, nameAndValue } from './requests.ts'

/**
 * The step's value. Undefined for what such a file cannot hold: a variable without a value, or twice. CPU time is given in
 * thousandths, rounded up.
 */
export function requestCase(request: ContainerRequest): object | undefined {
  const env = new Map(request.env.map(nameAndValue))
  if (env.size !== request.env.length || request.env.some((entry) => !entry.includes('='))) return undefined
  const { memoryBytes, cpuQuotaUs, cpuPeriodUs, pids } = request.resources
  const { args, groups = [], devices = [] } = request
  const cpu = cpuQuotaUs > 0 ? Math.ceil((cpuQuotaUs * 1000) / (cpuPeriodUs > 0 ? cpuPeriodUs : 100_000)) : 0
  return {
    id: request.containerId,
    name: request.name,
    image: request.image,
    ...(args === undefined ? {} : { args }),
    env: Object.fromEntries(env),
    user: request.user,
    workingDir: request.workingDir,
    mounts: request.mounts.map(({ kind, destination, readOnly, sizeLimitBytes, volume = '' }) => {
      return { kind, path: destination, readOnly, sizeLimitBytes, volume }
    }),
    groups,
    devices: devices.map(({ path, disk }) => ({ path, disk })),
    terminal: request.terminal,
    stdin: request.stdin,
    sharesProcesses: request.sharesProcesses,
    resources: {
      ...(memoryBytes > 0 ? { memory: memoryBytes } : {}),
      ...(cpu > 0 ? { cpu: `${cpu}m` } : {}),
      ...(pids > 0 ? { pids } : {}),
    },
  }
}

/** Text of a file of cases with this step alone. @param step JSON of `requestCase` */
export function caseFile(step: string): string {
  return `{"apiVersion": "caisson/v1", "kind": "PolicyTest", "steps": [{"create": ${step}}]}`
}
