/** Ports of a pod: where containerd looks for what is forwarded, joined with those that the guest opens. */
import { errorText } from '#protocol/errors'
import { StreamKind } from '#protocol/gen/agent_pb'
import { readBundle } from './bundle.ts'
import type { NodePod } from './node-pod.ts'
import type { RelayControl } from './relay-control.ts'

/** Opens the ports that the guest opens for its containers, in the pod's namespace. */
export async function openPorts(pod: NodePod): Promise<void> {
  const { networkNamespace } = await readBundle(pod.record.bundle)
  const containers = await pod.guest().agent.listContainers()
  const relay = await pod.relay
  if (networkNamespace === undefined) return
  for (const port of new Set(containers.flatMap(({ ports }) => ports))) await relay.listen(port, networkNamespace)
}

/** Joins a client of a port with the guest, which says whether the port is open. */
export async function forwardClient(
  pod: NodePod,
  relay: RelayControl,
  { client, port, log }: { readonly client: string; readonly port: number; readonly log: (line: string) => void },
): Promise<void> {
  try {
    await pod.resumed
    const { agent, vsock } = pod.guest()
    const ticket = await agent.openStream({ kind: StreamKind.PORT, port })
    await relay.joinClient(client, { vsock, ticket })
  } catch (error) {
    log(`port ${port}: ${errorText(error)}`)
    relay.refuseClient(client)
  }
}
