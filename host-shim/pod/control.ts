/**
 * How `caisson ps | logs | exec | stop` reach a pod that another process (`caisson run`) owns.
 *
 * There is no control protocol. The pod's record says who owns it, and its vsock socket leads to the agent, which takes
 * any number of connections and judges every request by the tenant's policy, whoever on the host sends it. So another
 * process does what the owner does: it connects and calls. The only authority is the state directory's mode (0700).
 *
 * Stopping is an RPC to the agent too: the guest powers off, the owner sees the VM end and tidies up. Where the guest does
 * not obey, or the owner is gone, the pod is removed from outside; a living owner then sees its VM end.
 */
import { UnavailableError, UsageError } from '#protocol/errors'
import { AgentClient } from './agent-client.ts'
import type { GuestAccess } from './guest-streams.ts'
import {
  isAbandoned,
  isOwned,
  listPodIds,
  type PodPaths,
  type PodRecord,
  podPaths,
  readPodRecord,
  removePod,
} from './state-dir.ts'

export interface PodSummary {
  readonly id: string
  readonly record: PodRecord | undefined
  /** `running`: its owner lives; `orphaned`: left over, `caisson rm` or the next `caisson run` removes it. */
  readonly state: 'running' | 'orphaned'
}

/** All pods below the state root, by id. Damaged records are listed as orphaned. */
export async function listPods(stateRoot: string): Promise<readonly PodSummary[]> {
  const pods: PodSummary[] = []
  for (const id of await listPodIds(stateRoot)) {
    const record = await readPodRecord(podPaths(stateRoot, id)).catch(() => undefined)
    const running = record !== undefined && (await isOwned(record))
    pods.push({ id, record, state: running ? 'running' : 'orphaned' })
  }
  return pods
}

export interface PodHandle extends GuestAccess, Disposable {
  readonly record: PodRecord
  readonly paths: PodPaths
}

/**
 * Connects to the agent of a running pod.
 * @throws UsageError ERR_POD_UNKNOWN; UnavailableError ERR_POD_ORPHANED, ERR_VSOCK_CONNECT
 */
export async function connectPod(stateRoot: string, id: string): Promise<PodHandle> {
  const paths = podPaths(stateRoot, id)
  const record = await readPodRecord(paths)
  if (record === undefined) throw unknownPod(id)
  if (!(await isOwned(record))) {
    throw new UnavailableError('ERR_POD_ORPHANED', `the process that ran pod ${id} is gone`, {
      hint: `Remove what is left: caisson rm ${id}`,
    })
  }
  const agent = await AgentClient.connect(paths.vsock)
  return { record, paths, agent, vsock: paths.vsock, [Symbol.dispose]: () => agent.close() }
}

const DEFAULT_GRACE_MS = 10_000

/**
 * Ends a pod, running or orphaned, and removes what it left. Resolves when its directory is gone.
 * @throws UsageError ERR_POD_UNKNOWN
 */
export async function stopPod(
  stateRoot: string,
  id: string,
  options: { readonly graceMs?: number } = {},
): Promise<void> {
  const graceMs = options.graceMs ?? DEFAULT_GRACE_MS
  const paths = podPaths(stateRoot, id)
  if (!(await listPodIds(stateRoot)).includes(id)) throw unknownPod(id)
  const record = await readPodRecord(paths).catch(() => undefined)
  if (record !== undefined && (await isOwned(record))) {
    await askToShutDown(paths, graceMs)
    if (await ownerRemoves(stateRoot, id, graceMs)) return
  }
  await removePod(paths)
}

/**
 * Removes what is left of a pod whose owner is gone.
 * @throws UsageError ERR_POD_UNKNOWN; ERR_POD_RUNNING when it is not left over
 */
export async function removeOrphan(stateRoot: string, id: string): Promise<void> {
  const paths = podPaths(stateRoot, id)
  if (!(await listPodIds(stateRoot)).includes(id)) throw unknownPod(id)
  if (!(await isAbandoned(paths))) {
    throw new UsageError('ERR_POD_RUNNING', `pod ${id} runs, or is just being started`, {
      hint: `End it with: caisson stop ${id}`,
    })
  }
  await removePod(paths)
}

async function askToShutDown(paths: PodPaths, graceMs: number): Promise<void> {
  const agent = await AgentClient.connect(paths.vsock).catch(() => undefined)
  if (agent === undefined) return
  // A guest that powers off at once closes the connection instead of answering.
  await agent.shutdown({ timeoutMs: graceMs }).catch(() => undefined)
  agent.close()
}

/** The owner sees its VM end and removes the directory. */
async function ownerRemoves(stateRoot: string, id: string, graceMs: number): Promise<boolean> {
  for (const deadline = Date.now() + graceMs; Date.now() < deadline; ) {
    if (!(await listPodIds(stateRoot)).includes(id)) return true
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return false
}

function unknownPod(id: string): UsageError {
  return new UsageError('ERR_POD_UNKNOWN', `there is no pod ${JSON.stringify(id)}`, { hint: 'See caisson ps' })
}
