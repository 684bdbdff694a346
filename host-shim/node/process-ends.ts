/** How the processes of a pod end: followed in the guest, written down, then told in containerd's order. */
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import { errorText } from '#protocol/errors'
import { TaskExitSchema, TaskOOMSchema } from '../containerd/gen/events_pb.ts'
import { GuestRefusalError, type ProcessName } from '../pod/agent-client.ts'
import { writeTerminationMessage } from '../volumes/termination-message.ts'
import { readBundle } from './bundle.ts'
import { eventRecord } from './event-publisher.ts'
import type { Machine } from './machine.ts'
import type { EventRecord, TaskRecord } from './pod-record.ts'
import { type Process, type Processes, UNKNOWN_EXIT } from './processes.ts'

/** Execs end with their container's first process; their ends are told first. */
const EXEC_END_MS = 5000

export interface EndsOf {
  readonly processes: Processes
  /** Undefined when it is gone. */
  readonly machine: () => Machine | undefined
  readonly saveAnd: (...events: readonly EventRecord[]) => void
  readonly log: (line: string) => void
}

export class ProcessEnds {
  readonly #of: EndsOf

  constructor(of: EndsOf) {
    this.#of = of
  }

  /** Follows a process until it ends, however often the daemon changes. */
  watch(process: Process): void {
    void this.#follow(process)
  }

  /** The first process ended, or an exec: execs first, then the state, then who waits. */
  async stopped({ task, execId, record }: Process, exitStatus: number): Promise<void> {
    const { processes, saveAnd } = this.#of
    if (record.status === 'stopped') return
    if (execId === '') await this.#execsEnd(task)
    if (!processes.stop(record, exitStatus)) return
    const exit = eventRecord('/tasks/exit', TaskExitSchema, {
      containerId: task.id,
      id: execId === '' ? task.id : execId,
      pid: record.pid,
      exitStatus,
      exitedAt: timestampFromMs(record.exitedAtMs),
    })
    const oom =
      task.oomKilled && execId === '' ? [eventRecord('/tasks/oom', TaskOOMSchema, { containerId: task.id })] : []
    saveAnd(...oom, exit)
    processes.tell(record)
  }

  async #follow(process: Process): Promise<void> {
    const { task, execId, record } = process
    if (record.status === 'stopped') return
    const machine = this.#of.machine()
    // Lost while the process was made: whoever told of everything that ended with it did not know of this one.
    if (machine === undefined) return this.stopped(process, UNKNOWN_EXIT)
    const name: ProcessName = execId === '' ? { containerId: task.id } : { containerId: task.id, execId }
    try {
      const { exitCode, oomKilled, terminationMessage } = await machine.agent.wait(name)
      if (execId === '') {
        task.oomKilled = oomKilled
        await this.lastWords(task, terminationMessage)
      }
      await this.stopped(process, exitCode)
    } catch (error) {
      // The machine is gone, and with it everything: told by whoever watches it. A guest that does not know the process
      // any more has lost it.
      if (error instanceof GuestRefusalError) await this.stopped(process, UNKNOWN_EXIT)
    }
  }

  /** Before the end is told: the kubelet reads it then. */
  async lastWords(task: TaskRecord, message: Uint8Array): Promise<void> {
    try {
      const { mounts } = await readBundle(task.bundle)
      await writeTerminationMessage(mounts, message)
    } catch (error) {
      this.#of.log(`no termination message: ${errorText(error)}`)
    }
  }

  async #execsEnd(task: TaskRecord): Promise<void> {
    const { processes, machine } = this.#of
    const running = Object.entries(task.execs).filter(([, { status }]) => status === 'running')
    if (running.length === 0) return
    const ends = running.map(([execId, record]) => processes.ended({ task, execId, record }))
    if (machine() !== undefined) {
      await Promise.race([Promise.all(ends), new Promise((resolve) => setTimeout(resolve, EXEC_END_MS))])
    }
    for (const [execId, record] of running) await this.stopped({ task, execId, record }, UNKNOWN_EXIT)
  }
}
