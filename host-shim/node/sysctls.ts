/** Kernel settings of a pod. */
import type { Bundle } from './bundle.ts'

/** containerd 2 gives them to every pod, so they are nobody's wish; a guest's processes need no right for them. */
const OF_CONTAINERD: Readonly<Record<string, string>> = {
  'net.ipv4.ip_unprivileged_port_start': '0',
  'net.ipv4.ping_group_range': '0 2147483647',
}

/** Kernel settings that the pod's author wrote, for the guest's policy to judge. */
export function askedSysctls(sysctls: Bundle['sysctls']): { name: string; value: string }[] {
  return Object.entries(sysctls).flatMap(([name, value]) => (OF_CONTAINERD[name] === value ? [] : [{ name, value }]))
}
