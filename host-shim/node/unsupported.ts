/** What a pod may ask of other runtimes and gets none of here: refused by name, not left out in silence. */
import { UsageError } from '#protocol/errors'
import type { Bundle } from './bundle.ts'
import { UNRESOLVED_ID } from './container-request.ts'

/** containerd 2 gives them to every pod, so they are nobody's wish; a guest's processes need no right for them. */
const OF_CONTAINERD: Readonly<Record<string, string>> = {
  'net.ipv4.ip_unprivileged_port_start': '0',
  'net.ipv4.ping_group_range': '0 2147483647',
}

/** Kernel settings that the pod's author wrote, for the guest's policy to judge. */
export function askedSysctls(sysctls: Bundle['sysctls']): { name: string; value: string }[] {
  return Object.entries(sysctls).flatMap(([name, value]) => (OF_CONTAINERD[name] === value ? [] : [{ name, value }]))
}

/** @throws UsageError ERR_POD_UNSUPPORTED */
export function refuseUnsupported(bundle: Bundle): void {
  const { process } = bundle
  const groups = process.additionalGids.filter((gid) => gid !== process.gid && gid !== UNRESOLVED_ID)
  if (groups.length > 0) throw unsupported(`supplementary groups (${groups.join(', ')}; fsGroup or supplementalGroups)`)
}

function unsupported(what: string): UsageError {
  return new UsageError('ERR_POD_UNSUPPORTED', `guests have no ${what}`, {
    hint: 'Remove it from the pod; docs/conformance.md lists what is offered',
  })
}
