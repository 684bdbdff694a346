/** Processes of a pod as the daemon follows them: records on disk, and who waits for their end. */
import { rpcStatus } from '#protocol/ttrpc/status'
import type { ExecRecord, PodRecord, ProcessRecord, TaskRecord } from './pod-record.ts'

/** Exit status of a process whose machine was lost: nobody knows. */
export const UNKNOWN_EXIT = 255
/** Of a process that a signal ended: 128 and its number. */
export const SIGNAL_EXIT = 128
export const SIGKILL = 9
export const SIGKILL_EXIT = 137

export interface Process {
  readonly task: TaskRecord
  /** Empty: the first process. */
  readonly execId: string
  readonly record: ProcessRecord
}

export class Processes {
  /** What this very daemon is creating: each ends with the request for it. */
  readonly underway: Set<TaskRecord> = new Set()
  readonly #record: PodRecord
  readonly #ends = new Map<ProcessRecord, PromiseWithResolvers<void>>()

  constructor(record: PodRecord) {
    this.#record = record
  }

  tasks(): readonly TaskRecord[] {
    return Object.values(this.#record.tasks)
  }

  /** @throws RpcError not found */
  task(id: string): TaskRecord {
    const task = this.find(id)
    if (task === undefined) throw rpcStatus('notFound', `task ${id}: not found`)
    return task
  }

  find(id: string): TaskRecord | undefined {
    return Object.hasOwn(this.#record.tasks, id) ? this.#record.tasks[id] : undefined
  }

  /** @throws RpcError not found */
  get(id: string, execId: string): Process {
    const task = this.task(id)
    if (execId === '') return { task, execId, record: task }
    return { task, execId, record: this.exec(id, execId) }
  }

  exec(id: string, execId: string): ExecRecord {
    const { execs } = this.task(id)
    const exec = Object.hasOwn(execs, execId) ? execs[execId] : undefined
    if (exec === undefined) throw rpcStatus('notFound', `process ${execId} of task ${id}: not found`)
    return exec
  }

  /** Resolves when the process has stopped. */
  ended({ record }: Process): Promise<void> {
    if (record.status === 'stopped') return Promise.resolve()
    return this.#end(record).promise
  }

  /** Marks a process as stopped; false when it was already. */
  stop(record: ProcessRecord, exitStatus: number): boolean {
    if (record.status === 'stopped') return false
    record.status = 'stopped'
    record.exitStatus = exitStatus
    record.exitedAtMs = Date.now()
    return true
  }

  /** Wakes who waits, after everything that must be known by then has been written. */
  tell(record: ProcessRecord): void {
    this.#end(record).resolve()
    this.#ends.delete(record)
  }

  #end(record: ProcessRecord): PromiseWithResolvers<void> {
    const known = this.#ends.get(record)
    if (known !== undefined) return known
    const made = Promise.withResolvers<void>()
    this.#ends.set(record, made)
    return made
  }
}

export function newProcess(io: {
  readonly terminal: boolean
  readonly stdin: string
  readonly stdout: string
  readonly stderr: string
}): ProcessRecord {
  const { terminal, stdin, stdout, stderr } = io
  return { status: 'created', pid: 0, exitStatus: 0, exitedAtMs: 0, terminal, stdin, stdout, stderr, streams: [] }
}
