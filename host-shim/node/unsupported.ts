/** What a pod may ask of other runtimes and gets none of here: refused by name, not left out in silence. */
import { UsageError } from '#protocol/errors'
import type { Bundle } from './bundle.ts'
import { UNRESOLVED_ID } from './container-request.ts'

/** containerd 2 gives them to every pod; a guest's processes need no right for them either way. */
const HARMLESS_SYSCTLS: ReadonlySet<string> = new Set([
  'net.ipv4.ip_unprivileged_port_start',
  'net.ipv4.ping_group_range',
])

/** @throws UsageError ERR_POD_UNSUPPORTED */
export function refuseUnsupported(bundle: Bundle): void {
  const { process, sharesProcesses, sysctls } = bundle
  const groups = process.additionalGids.filter((gid) => gid !== process.gid && gid !== UNRESOLVED_ID)
  if (groups.length > 0) throw unsupported(`supplementary groups (${groups.join(', ')}; fsGroup or supplementalGroups)`)
  if (sharesProcesses) throw unsupported('process namespaces that containers share (shareProcessNamespace)')
  const unknown = Object.keys(sysctls).filter((name) => !HARMLESS_SYSCTLS.has(name))
  if (unknown.length > 0) throw unsupported(`sysctls (${unknown.join(', ')})`)
}

function unsupported(what: string): UsageError {
  return new UsageError('ERR_POD_UNSUPPORTED', `guests have no ${what}`, {
    hint: 'Remove it from the pod; docs/conformance.md lists what is offered',
  })
}
