/** Steps in the guest that a daemon may have to take up again after it, or the one before it, was ended within them. */
import type { MessageInitShape } from '@bufbuild/protobuf'
import { UnavailableError } from '#protocol/errors'
import { ContainerState, type CreateContainerRequestSchema } from '#protocol/gen/agent_pb'
import { type AgentClient, GuestRefusalError } from '../pod/agent-client.ts'

const LOOK_MS = 250
/** As long as the guest itself may take for a pull. */
const PATIENCE_MS = 60 * 60_000

/** @param again a daemon before may have asked for it: the guest goes on with what it was asked, and so it may exist */
export async function createInGuest(
  agent: AgentClient,
  request: MessageInitShape<typeof CreateContainerRequestSchema>,
  again: boolean,
): Promise<void> {
  try {
    await agent.createContainer(request)
  } catch (error) {
    if (!again || !isRefusal(error, 'ERR_CONTAINER_EXISTS', 'ERR_POLICY_DENIED')) throw error
    await appears(agent, request.containerId ?? '', error)
  }
}

/** The creation that was asked for before is still under way, or done. */
async function appears(agent: AgentClient, id: string, error: unknown): Promise<void> {
  for (const deadline = Date.now() + PATIENCE_MS; Date.now() < deadline; ) {
    const containers = await agent.listContainers()
    if (containers.some(({ containerId }) => containerId === id)) return
    // A denial is also what a container is told whose creation holds the only place that the policy has.
    if (isRefusal(error, 'ERR_POLICY_DENIED')) throw error
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
  }
  throw new UnavailableError('ERR_GUEST_CREATE', `the guest did not finish creating ${id}`)
}

export async function startInGuest(agent: AgentClient, id: string, again: boolean): Promise<void> {
  try {
    await agent.startContainer(id)
  } catch (error) {
    if (!again || !isRefusal(error, 'ERR_CONTAINER_STATE')) throw error
    const found = (await agent.listContainers()).find(({ containerId }) => containerId === id)
    if (found === undefined || found.state === ContainerState.CREATED) throw error
  }
}

function isRefusal(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof GuestRefusalError && codes.includes(error.code)
}
