/** What a pod's bundle says of its sandbox, as the guest is asked for it: names, network, kernel settings. */
import { readFile } from 'node:fs/promises'
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { StartSandboxRequestSchema } from '#protocol/gen/agent_pb'
import { describePodNetwork } from '../network/pod-network.ts'
import type { Bundle } from './bundle.ts'
import { readResolvConf } from './resolv-conf.ts'
import { askedSysctls } from './sysctls.ts'

/** @throws what `describePodNetwork` and `askedSysctls` throw */
export async function sandboxRequest(bundle: Bundle): Promise<MessageInitShape<typeof StartSandboxRequestSchema>> {
  const { networkNamespace } = bundle
  const network = networkNamespace === undefined ? undefined : await describePodNetwork(networkNamespace)
  const source = bundle.mounts.find(({ destination }) => destination === '/etc/resolv.conf')?.source
  const resolv = source === undefined ? '' : await readFile(source, 'utf8').catch(() => '')
  const { nameservers, searches, options } = readResolvConf(resolv)
  return {
    hostname: bundle.hostname,
    interfaces: network === undefined ? [] : [network],
    nameservers: [...nameservers],
    searches: [...searches],
    resolverOptions: [...options],
    sysctls: askedSysctls(bundle.sysctls),
    hosts: [],
  }
}
