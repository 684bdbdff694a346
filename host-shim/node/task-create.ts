/** A task as containerd asks for it: on record before anything is made, and off it again when that fails. */
import type { MessageInitShape, MessageShape } from '@bufbuild/protobuf'
import { type RpcError, rpcStatus } from '#protocol/ttrpc/status'
import { TaskCreateSchema } from '../containerd/gen/events_pb.ts'
import type { CreateTaskRequestSchema, CreateTaskResponseSchema } from '../containerd/gen/task_pb.ts'
import { ANNOTATION } from './annotations.ts'
import { readBundle } from './bundle.ts'
import { withPull } from './create-failure.ts'
import { eventRecord } from './event-publisher.ts'
import { createContainer } from './guest-tasks.ts'
import { causeOf } from './machine-end.ts'
import type { NodePod } from './node-pod.ts'
import type { TaskRecord } from './pod-record.ts'
import { newProcess, SIGKILL_EXIT } from './processes.ts'

/** Boots the machine of a sandbox, or makes a container in its guest. `again` after a daemon that may have begun. */
export async function createTask(
  pod: NodePod,
  request: MessageShape<typeof CreateTaskRequestSchema>,
  again: boolean,
): Promise<MessageInitShape<typeof CreateTaskResponseSchema>> {
  const { id, bundle: directory, rootfs, terminal, stdin, stdout, stderr } = request
  const known = pod.processes.find(id)
  if (known !== undefined && !again) throw rpcStatus('alreadyExists', `task ${id}: already exists`)
  if (request.checkpoint !== '') throw noCheckpoints()
  const bundle = await readBundle(directory)
  const kind = bundle.annotations[ANNOTATION.containerType] === 'sandbox' ? 'sandbox' : 'container'
  const { env, cwd: workingDir, uid, gid } = bundle.process
  const task: TaskRecord = {
    ...newProcess({ terminal, stdin, stdout, stderr }),
    status: 'creating',
    id,
    bundle: directory,
    kind,
    process: { env: [...env], user: `${uid}:${gid}`, workingDir },
    oomKilled: false,
    execs: {},
  }
  pod.record.tasks[id] = task
  pod.processes.underway.add(task)
  try {
    pod.saveFirst()
    const machine = kind === 'sandbox' ? await pod.boot() : await createContainer(pod, task, again)
    task.pid = machine
    task.status = 'created'
  } catch (error) {
    delete pod.record.tasks[id]
    const cause = await causeOf(error, pod.machineEnd)
    if (kind === 'container') throw withPull(cause, pod.progress.pullOf(id))
    await pod.stopMachine(SIGKILL_EXIT, 0)
    throw cause
  } finally {
    pod.processes.underway.delete(task)
  }
  const io = { stdin, stdout, stderr, terminal }
  const { pid } = task
  pod.saveAnd(eventRecord('/tasks/create', TaskCreateSchema, { containerId: id, bundle: directory, rootfs, io, pid }))
  if (kind === 'container') pod.watch({ task, execId: '', record: task })
  return { pid }
}

/**
 * For good: a checkpoint is the memory of processes, which the host may neither have nor choose. With this status clients of
 * containerd say that the runtime has no checkpoints, and go on.
 */
export function noCheckpoints(): RpcError {
  return rpcStatus('unimplemented', 'confidential containers have no checkpoints: not implemented')
}
