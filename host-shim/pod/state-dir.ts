/**
 * The state directory of a pod: every file and socket the pod makes on the host lies in it, so that removing it removes
 * the pod. `record.json` is written before anything else is made, and names who owns the pod.
 */
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MalformedError, UsageError } from '#protocol/errors'
import type { Platform } from '#vmm/types'
import {
  bootId,
  endProcess,
  findPodProcesses,
  identifyProcess,
  isSameProcess,
  type ProcessIdentity,
} from './process-identity.ts'

export interface PodRecord {
  readonly version: 1
  readonly id: string
  readonly platform: Platform
  /** Milliseconds since the epoch. */
  readonly createdAtMs: number
  readonly bootId: string
  /** The process whose end is the pod's: `caisson run`, or the relay of a Kubernetes pod. */
  readonly owner: ProcessIdentity
  readonly labels: Readonly<Record<string, string>>
}

export interface PodPaths {
  readonly directory: string
  readonly record: string
  readonly initdata: string
  readonly scratch: string
  /** Host side of vsock: `CONNECT <port>`. */
  readonly vsock: string
  readonly vhost: string
  readonly tpmState: string
  readonly tpmSocket: string
  readonly consoleLog: string
  /** What QEMU itself says. */
  readonly vmmLog: string
}

const MAX_RECORD_BYTES = 64 * 1024

/** @throws UsageError ERR_POD_ID */
export function podPaths(stateRoot: string, id: string): PodPaths {
  if (!/^[a-z0-9][a-z0-9-]{0,39}$/.test(id)) {
    throw new UsageError('ERR_POD_ID', `${JSON.stringify(id)} is not the id of a pod`, {
      hint: 'Ids have at most 40 lower-case letters, digits and "-"; see caisson ps',
    })
  }
  const directory = join(stateRoot, 'pods', id)
  return {
    directory,
    record: join(directory, 'record.json'),
    initdata: join(directory, 'initdata.img'),
    scratch: join(directory, 'scratch.img'),
    vsock: join(directory, 'vsock.sock'),
    vhost: join(directory, 'vhost.sock'),
    tpmState: join(directory, 'tpm'),
    tpmSocket: join(directory, 'tpm.sock'),
    consoleLog: join(directory, 'console.log'),
    vmmLog: join(directory, 'vmm.log'),
  }
}

/** Makes the directory and its record, owned by `ownerPid`. @throws UsageError ERR_POD_EXISTS */
export async function createPodState(
  paths: PodPaths,
  pod: Pick<PodRecord, 'id' | 'platform' | 'labels'>,
  ownerPid: number = process.pid,
): Promise<PodRecord> {
  await mkdir(join(paths.directory, '..'), { recursive: true, mode: 0o700 })
  try {
    await mkdir(paths.directory, { mode: 0o700 })
  } catch (cause) {
    throw new UsageError('ERR_POD_EXISTS', `a pod named ${pod.id} exists in ${paths.directory}`, {
      hint: `Choose another name, or end that one: caisson stop ${pod.id}`,
      cause,
    })
  }
  const owner = await identifyProcess(ownerPid)
  if (owner === undefined) throw new Error(`/proc does not know process ${ownerPid}`)
  const record: PodRecord = { version: 1, createdAtMs: Date.now(), bootId: await bootId(), owner, ...pod }
  const draft = `${paths.record}.new`
  await writeFile(draft, JSON.stringify(record), { mode: 0o600, flush: true })
  await rename(draft, paths.record)
  return record
}

/** @throws MalformedError ERR_POD_RECORD */
export function parsePodRecord(text: string): PodRecord {
  const refuse = (cause?: unknown) =>
    new MalformedError('ERR_POD_RECORD', 'the record of a pod is damaged', {
      hint: 'Remove the pod with: caisson rm',
      cause,
    })
  if (text.length > MAX_RECORD_BYTES) throw refuse()
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw refuse(cause)
  }
  if (!isRecord(value)) throw refuse()
  return value
}

function isRecord(value: unknown): value is PodRecord {
  if (typeof value !== 'object' || value === null) return false
  const { version, id, platform, createdAtMs, bootId: boot, owner, labels } = value as Partial<Record<string, unknown>>
  return (
    version === 1 &&
    typeof id === 'string' &&
    (platform === 'tpm' || platform === 'none') &&
    typeof createdAtMs === 'number' &&
    typeof boot === 'string' &&
    isIdentity(owner) &&
    typeof labels === 'object' &&
    labels !== null &&
    Object.values(labels).every((label) => typeof label === 'string')
  )
}

function isIdentity(value: unknown): value is ProcessIdentity {
  if (typeof value !== 'object' || value === null) return false
  const { pid, startTicks } = value as Partial<Record<string, unknown>>
  return Number.isInteger(pid) && Number(pid) > 1 && typeof startTicks === 'number'
}

/** Ids of all pods that have a state directory, running or left over. */
export async function listPodIds(stateRoot: string): Promise<readonly string[]> {
  const names = await readdir(join(stateRoot, 'pods')).catch(() => [])
  return names.filter((name) => /^[a-z0-9][a-z0-9-]{0,39}$/.test(name)).toSorted()
}

export async function readPodRecord(paths: PodPaths): Promise<PodRecord | undefined> {
  const text = await readFile(paths.record, 'utf8').catch(() => undefined)
  return text === undefined ? undefined : parsePodRecord(text)
}

/** Whether the process that runs the pod still lives. */
export async function isOwned(record: PodRecord): Promise<boolean> {
  return record.bootId === (await bootId()) && isSameProcess(record.owner)
}

/**
 * Removes everything that is left of a pod: its processes, then its directory. Safe to call again, at any point of a
 * pod's life and after a crash of any part. The caller decides that the pod shall end.
 */
export async function removePod(paths: PodPaths, options: { readonly graceMs?: number } = {}): Promise<void> {
  const processes = await findPodProcesses(paths.directory)
  await Promise.all(processes.map((identity) => endProcess(identity, options.graceMs ?? 2000)))
  await rm(paths.directory, { recursive: true, force: true })
}

/** Removes the pods whose owner is gone; answers with their ids. */
export async function reconcilePods(stateRoot: string): Promise<readonly string[]> {
  const removed: string[] = []
  for (const id of await listPodIds(stateRoot)) {
    const paths = podPaths(stateRoot, id)
    if (!(await isAbandoned(paths))) continue
    await removePod(paths)
    removed.push(id)
  }
  return removed
}

/** Whether nobody runs the pod, and nobody is just making it. */
export async function isAbandoned(paths: PodPaths): Promise<boolean> {
  const record = await readPodRecord(paths).catch(() => undefined)
  return record === undefined ? !(await isYoung(paths)) : !(await isOwned(record))
}

/** A directory without a record may belong to a start that is just making one. */
async function isYoung(paths: PodPaths): Promise<boolean> {
  const made = await stat(paths.directory).catch(() => undefined)
  return made !== undefined && Date.now() - made.mtimeMs < 10_000
}
