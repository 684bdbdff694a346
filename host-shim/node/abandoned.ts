/**
 * What containerd has forgotten. One that was killed comes back without what it had only begun: it removes bundles that it
 * has no owner for, or never made one, and tells no shim. So a pod without a task is abandoned, and a task without a bundle,
 * which containerd keeps until it has deleted the task.
 */
import { existsSync } from 'node:fs'
import { errorText } from '#protocol/errors'
import { deleteInGuest } from './guest-tasks.ts'
import type { NodePod } from './node-pod.ts'
import type { TaskRecord } from './pod-record.ts'
import { SIGKILL } from './processes.ts'
import { detach } from './stdio.ts'

type Watched = Pick<NodePod, 'processes'>

export interface Abandoned<Pod> {
  readonly pods: readonly Pod[]
  readonly containers: readonly { readonly pod: Pod; readonly task: TaskRecord }[]
}

/** Abandoned is what two looks in a row find so: a request may just be on its way from one state to the next. */
export class AbandonedWatch<Pod extends Watched = NodePod> {
  #suspects: ReadonlySet<Pod | TaskRecord> = new Set()

  look(pods: readonly Pod[]): Abandoned<Pod> {
    const lost = pods.filter(isForgotten)
    const containers = pods
      .filter((pod) => !lost.includes(pod))
      .flatMap((pod) => forgottenTasks(pod).map((task) => ({ pod, task })))
    const before = this.#suspects
    this.#suspects = new Set([...lost, ...containers.map(({ task }) => task)])
    return {
      pods: lost.filter((pod) => before.has(pod)),
      containers: containers.filter(({ task }) => before.has(task)),
    }
  }
}

export interface AbandonedRemovalOptions {
  /** Ends a pod and removes everything of it. */
  readonly end: (pod: NodePod) => Promise<void>
  readonly log: (line: string) => void
}

/** Removes what is abandoned; each once at a time, however long a guest takes over it. */
export class AbandonedRemoval {
  readonly #watch = new AbandonedWatch()
  readonly #underway = new Set<NodePod | TaskRecord>()
  readonly #options: AbandonedRemovalOptions

  constructor(options: AbandonedRemovalOptions) {
    this.#options = options
  }

  look(all: readonly NodePod[]): void {
    const { end, log } = this.#options
    const { pods, containers } = this.#watch.look(all)
    for (const pod of pods) {
      void this.#once(pod, async () => {
        log(`pod ${pod.record.sandboxId}: containerd has forgotten it, it is removed`)
        await end(pod)
      })
    }
    for (const { pod, task } of containers) void this.#once(task, () => removeAbandoned(pod, task, log))
  }

  async #once(what: NodePod | TaskRecord, remove: () => Promise<void>): Promise<void> {
    if (this.#underway.has(what)) return
    this.#underway.add(what)
    try {
      await remove()
    } finally {
      this.#underway.delete(what)
    }
  }
}

function isForgotten(pod: Watched): boolean {
  const tasks = pod.processes.tasks()
  return tasks.length === 0 || forgottenTasks(pod).some(({ kind }) => kind === 'sandbox')
}

/** What this daemon is creating is wanted; what an earlier one only began is so for as long as its bundle is there. */
function forgottenTasks({ processes }: Watched): readonly TaskRecord[] {
  return processes.tasks().filter((task) => !processes.underway.has(task) && !existsSync(task.bundle))
}

/** Ends a container in its guest and takes it off the record, once the pod has been taken over. */
export async function removeAbandoned(pod: NodePod, task: TaskRecord, log: (line: string) => void): Promise<void> {
  const process = { task, execId: '', record: task }
  await pod.resumed
  // Removed or made again in the meantime: nothing of what the guest has now is abandoned.
  if (pod.processes.find(task.id) !== task) return
  log(`pod ${pod.record.sandboxId}: containerd has forgotten ${task.id}, it is removed`)
  try {
    if (task.status === 'running' || task.status === 'paused') {
      await pod.guest().agent.signal({ containerId: task.id }, SIGKILL, { all: true })
      await pod.processes.ended(process)
    }
    await deleteInGuest(pod, process, true)
    await detach(process, await pod.relay.catch(() => undefined))
    if (pod.processes.find(task.id) === task) pod.forget(process)
  } catch (error) {
    // The next look finds it again.
    log(`pod ${pod.record.sandboxId}: ${task.id} could not be removed: ${errorText(error)}`)
  }
}
