/** The state of a task's process, in containerd's words. */
import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import { type StateResponseSchema, Status } from '../containerd/gen/task_pb.ts'
import type { ProcessStatus } from './pod-record.ts'
import type { Process } from './processes.ts'

/** The year 1: how containerd's own language writes "not yet". */
export const NEVER = { seconds: -62_135_596_800n, nanos: 0 }

const STATUS: Readonly<Record<ProcessStatus, Status>> = {
  creating: Status.UNKNOWN,
  created: Status.CREATED,
  running: Status.RUNNING,
  paused: Status.PAUSED,
  stopped: Status.STOPPED,
}

export function stateOf({ task, execId, record }: Process): MessageInitShape<typeof StateResponseSchema> {
  const { pid, status, stdin, stdout, stderr, terminal, exitStatus, exitedAtMs } = record
  return {
    id: task.id,
    execId,
    bundle: task.bundle,
    pid,
    status: STATUS[status],
    stdin,
    stdout,
    stderr,
    terminal,
    exitStatus,
    exitedAt: status === 'stopped' ? timestampFromMs(exitedAtMs) : NEVER,
  }
}
