/** What the policy says of the pod as a whole, carried out: kernel settings and the names in /etc/hosts. */
import { IPC_SYSCTLS, NETWORK_SYSCTLS } from '#policies/pod-rule'
import type { WorkloadPolicy } from '#policies/workload'
import { errorText, UnavailableError } from '#protocol/errors'
import type { Files } from '../platform/platform.ts'
import type { SandboxRequest } from './requests.ts'
import { writeSandboxFiles } from './sandbox-files.ts'

/** @throws UnavailableError ERR_SYSCTL */
export async function preparePod(files: Files, { pod }: WorkloadPolicy, request: SandboxRequest): Promise<void> {
  if (pod.hostAliases.length > 0) await writeSandboxFiles(files, request, pod.hostAliases)
  for (const [name, value] of pod.sysctls) {
    if (!NETWORK_SYSCTLS.includes(name)) continue
    await files.control(`/proc/sys/${name.replaceAll('.', '/')}`, value).catch((cause: unknown) => {
      throw new UnavailableError('ERR_SYSCTL', `the kernel does not take ${name}=${value}: ${errorText(cause)}`, {
        hint: 'Change the value in the policy (`sysctls`).',
        cause,
      })
    })
  }
}

/** Settings of the IPC namespace, which every container has of its own. */
export function ipcSysctls({ pod }: WorkloadPolicy): Readonly<Record<string, string>> {
  return Object.fromEntries([...pod.sysctls].filter(([name]) => IPC_SYSCTLS.includes(name)))
}
