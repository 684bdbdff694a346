/** What ran in a machine that an earlier daemon booted: its ends are followed again, its volumes watched again. */
import { readBundle } from './bundle.ts'
import { mountedVolumes } from './container-request.ts'
import type { NodePod } from './node-pod.ts'
import type { TaskRecord } from './pod-record.ts'

export async function resumeTasks(pod: NodePod): Promise<void> {
  for (const task of pod.processes.tasks()) {
    // One that is being created is asked for again by the relay.
    if (task.kind === 'sandbox' || task.status === 'creating') continue
    await resumeVolumes(pod, task)
    pod.watch({ task, execId: '', record: task })
    for (const [execId, record] of Object.entries(task.execs)) {
      if (record.status === 'running') pod.watch({ task, execId, record })
    }
  }
}

async function resumeVolumes(pod: NodePod, task: TaskRecord): Promise<void> {
  const bundle = await readBundle(task.bundle).catch(() => undefined)
  const volumes = await mountedVolumes(bundle?.mounts ?? [], async () => false).catch(() => [])
  for (const { content } of volumes) if (content !== undefined) pod.volumes.adopt(content)
}
