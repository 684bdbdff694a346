/**
 * What pods left on a node whose processes are gone: after a crash of the machine's software, or by a kill. Driven by what
 * was written before anything was made: the daemon's records and those of the machines. Whatever belongs to a pod that
 * lives, or that may just be starting, is left alone.
 */
import { existsSync, statSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { leavePodNetwork } from '../network/pod-network.ts'
import { findPodProcesses, isSameProcess } from '../pod/process-identity.ts'
import { isOwned, listPodIds, podPaths, readPodRecord, removePod } from '../pod/state-dir.ts'
import { readBundle } from './bundle.ts'
import { type PodRecord, PodStore } from './pod-record.ts'

export interface Leftover {
  readonly kind: 'process' | 'machine' | 'network' | 'socket' | 'record' | 'snapshot'
  /** Of a process: /proc/PID; of a network: the namespace whose tap device and redirections are left. */
  readonly path: string
}

export interface GcOptions {
  readonly stateRoot: string
  readonly snapshots: string
  /** Only says what it would remove. */
  readonly dryRun: boolean
  /** How old something without a known owner must be. Default: longer than any start takes. Milliseconds. */
  readonly minAgeMs?: number
}

type Take = (leftover: Leftover, remove: () => Promise<unknown>) => Promise<void>

const MIN_AGE_MS = 5 * 60 * 1000

/** Removes what belongs to no living pod. Pods that run are left alone, also while no daemon does. */
export async function collectLeftovers(options: GcOptions): Promise<readonly Leftover[]> {
  const found: Leftover[] = []
  const take: Take = async (leftover, remove) => {
    found.push(leftover)
    if (!options.dryRun) await remove()
  }
  const { stateRoot, minAgeMs = MIN_AGE_MS } = options
  // Machines before the records that led to them: whoever is interrupted finds the rest again.
  for (const id of await listPodIds(stateRoot)) await collectMachine(stateRoot, id, minAgeMs, take)
  await collectRecords(stateRoot, minAgeMs, take)
  await collectSnapshots(options.snapshots, take)
  return found
}

async function collectMachine(stateRoot: string, id: string, minAgeMs: number, take: Take): Promise<void> {
  const paths = podPaths(stateRoot, id)
  if (await isLiving(stateRoot, id, minAgeMs)) return
  // Processes end as one with their directory; here they are named.
  for (const { pid } of await findPodProcesses(paths.directory)) {
    await take({ kind: 'process', path: `/proc/${pid}` }, async () => undefined)
  }
  await take({ kind: 'machine', path: paths.directory }, () => removePod(paths))
}

async function collectRecords(stateRoot: string, minAgeMs: number, take: Take): Promise<void> {
  const directory = join(stateRoot, 'records')
  if (!existsSync(directory)) return
  const store = new PodStore(stateRoot)
  const damaged: string[] = []
  for (const record of store.load((path) => damaged.push(path))) {
    const path = store.path(record.sandboxId)
    if (await isServed(record, path, minAgeMs)) continue
    const namespace = await networkOf(record)
    if (namespace !== undefined) await take({ kind: 'network', path: namespace }, () => leavePodNetwork(namespace))
    if (existsSync(record.socket))
      await take({ kind: 'socket', path: record.socket }, () => rm(record.socket, { force: true }))
    await take({ kind: 'record', path }, async () => store.remove(record.sandboxId))
  }
  for (const path of damaged) {
    const living = await isLiving(stateRoot, basename(path, '.json'), minAgeMs)
    if (!living && !isYoung(path, minAgeMs)) await take({ kind: 'record', path }, () => rm(path, { force: true }))
  }
  // A write that was cut short never got its name.
  for (const name of await readdir(directory)) {
    const path = join(directory, name)
    if (name.endsWith('.new') && !isYoung(path, minAgeMs))
      await take({ kind: 'record', path }, () => rm(path, { force: true }))
  }
}

async function collectSnapshots(snapshots: string, take: Take): Promise<void> {
  for (const name of await readdir(join(snapshots, 'snapshots')).catch(() => [])) {
    if (!name.startsWith('.removed-')) continue
    const path = join(snapshots, 'snapshots', name)
    await take({ kind: 'snapshot', path }, () => rm(path, { recursive: true, force: true }))
  }
}

/** Whether a machine has an owner, or is too young to have none. */
async function isLiving(stateRoot: string, id: string, minAgeMs: number): Promise<boolean> {
  if (!/^[a-z0-9][a-z0-9-]{0,39}$/.test(id)) return false
  const paths = podPaths(stateRoot, id)
  const record = await readPodRecord(paths).catch(() => undefined)
  return record === undefined ? isYoung(paths.directory, minAgeMs) : isOwned(record)
}

/** A pod ends with its relay. One without a relay is waiting for it, unless it has done so for too long. */
async function isServed({ relay }: PodRecord, path: string, minAgeMs: number): Promise<boolean> {
  return relay === undefined ? isYoung(path, minAgeMs) : isSameProcess(relay)
}

/** The namespace that a pod's bundle names, while it is there. */
async function networkOf({ bundle }: PodRecord): Promise<string | undefined> {
  const { networkNamespace } = await readBundle(bundle).catch(() => ({ networkNamespace: undefined }))
  return networkNamespace !== undefined && existsSync(networkNamespace) ? networkNamespace : undefined
}

function isYoung(path: string, minAgeMs: number): boolean {
  const status = statSync(path, { throwIfNoEntry: false })
  return status !== undefined && Date.now() - status.mtimeMs < minAgeMs
}
