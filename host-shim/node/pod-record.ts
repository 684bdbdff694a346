/**
 * What the daemon knows of a pod, on disk before anybody is told: a daemon that comes after a crash goes on from here.
 * Written whole and renamed into place; not flushed, since no pod survives the machine.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { errorText, UnavailableError } from '#protocol/errors'
import type { ProcessIdentity } from '../pod/process-identity.ts'

/** Where a process is in its life; `creating` and `starting` end with the request that leads out of them. */
export type ProcessStatus = 'creating' | 'created' | 'running' | 'paused' | 'stopped'

export interface ProcessRecord {
  status: ProcessStatus
  /** Of the machine's process on the host: a pid of the guest means nothing here. */
  pid: number
  exitStatus: number
  exitedAtMs: number
  terminal: boolean
  stdin: string
  stdout: string
  stderr: string
  /** Of the relay's streams. */
  streams: string[]
  /** Columns and rows that were asked for before the process existed. */
  window?: [columns: number, rows: number]
}

export interface ExecRecord extends ProcessRecord {
  args: string[]
  env: string[]
  user: string
  workingDir: string
}

export interface TaskRecord extends ProcessRecord {
  readonly id: string
  readonly bundle: string
  readonly kind: 'sandbox' | 'container'
  /** Environment, user and directory that execs start from; what they ask for beyond it goes to the guest. */
  process: { env: string[]; user: string; workingDir: string }
  oomKilled: boolean
  execs: Record<string, ExecRecord>
}

export interface EventRecord {
  readonly topic: string
  readonly type: string
  /** base64 */
  readonly value: string
  readonly atMs: number
}

/** The answer to a request, by the mark that the relay put on it. */
export interface AnswerRecord {
  readonly mark: string
  /** base64 of the response; absent for an error. */
  readonly response?: string
  readonly error?: { readonly code: number; readonly message: string }
}

export interface PodRecord {
  readonly version: 1
  /** containerd's id of the sandbox. */
  readonly sandboxId: string
  readonly namespace: string
  readonly bundle: string
  /** Of the relay: what containerd talks to. */
  readonly socket: string
  readonly containerd: { readonly grpc: string; readonly ttrpc: string }
  relay: ProcessIdentity | undefined
  /** The machine's process (`caisson-pod`), once it runs. */
  machine: ProcessIdentity | undefined
  /** Block devices that the VM has. */
  disks?: readonly { readonly serial: string; readonly number: string }[]
  readonly tasks: Record<string, TaskRecord>
  /** Not yet taken by containerd, oldest first. */
  readonly events: EventRecord[]
  /** Of requests that change something; the newest last. */
  readonly answers: AnswerRecord[]
  /** Marks of requests that were begun and not answered. */
  readonly begun: string[]
}

const MAX_ANSWERS = 64

/** Name of a pod's files and of its machine: a state directory's name is short (socket paths end at 107 bytes). */
export function podIdOf(sandboxId: string): string {
  return sandboxId.slice(0, 32)
}

export class PodStore {
  readonly #directory: string

  constructor(stateRoot: string) {
    this.#directory = join(stateRoot, 'records')
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 })
  }

  /** All pods whose record can be read; one that cannot is reported and left for `caisson node gc`. */
  load(onDamaged: (path: string, error: unknown) => void): readonly PodRecord[] {
    return readdirSync(this.#directory).flatMap((name) => {
      if (!name.endsWith('.json')) return []
      const path = join(this.#directory, name)
      try {
        const value: unknown = JSON.parse(readFileSync(path, 'utf8'))
        if (!isRecord(value)) throw new UnavailableError('ERR_NODE_RECORD', `${path} is no record of a pod`)
        return [value]
      } catch (error) {
        onDamaged(path, error)
        return []
      }
    })
  }

  /** @throws UnavailableError ERR_NODE_STATE */
  save(record: PodRecord): void {
    record.answers.splice(0, record.answers.length - MAX_ANSWERS)
    const path = this.path(record.sandboxId)
    try {
      writeFileSync(`${path}.new`, JSON.stringify(record), { mode: 0o600 })
      renameSync(`${path}.new`, path)
    } catch (cause) {
      rmSync(`${path}.new`, { force: true })
      throw new UnavailableError('ERR_NODE_STATE', `the record of a pod cannot be written: ${errorText(cause)}`, {
        hint: `Make room in ${this.#directory}; nothing is begun that is not recorded`,
        cause,
      })
    }
  }

  remove(sandboxId: string): void {
    rmSync(this.path(sandboxId), { force: true })
  }

  path(sandboxId: string): string {
    return join(this.#directory, `${podIdOf(sandboxId)}.json`)
  }
}

/** Our own file: its version and its place are checked, its content is what we wrote. */
function isRecord(value: unknown): value is PodRecord {
  return (
    typeof value === 'object' &&
    value !== null &&
    'version' in value &&
    value.version === 1 &&
    'sandboxId' in value &&
    typeof value.sandboxId === 'string' &&
    'tasks' in value &&
    'answers' in value &&
    'events' in value
  )
}
