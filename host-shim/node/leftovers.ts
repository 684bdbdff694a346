/** What pods left on a node whose processes are gone: after a crash of the machine's software, or by a kill. */
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { isSameProcess } from '../pod/process-identity.ts'
import { isOwned, listPodIds, podPaths, readPodRecord, removePod } from '../pod/state-dir.ts'
import { PodStore } from './pod-record.ts'

export interface Leftover {
  readonly kind: 'machine' | 'record' | 'snapshot'
  readonly path: string
}

export interface GcOptions {
  readonly stateRoot: string
  readonly snapshots: string
  /** Only says what it would remove. */
  readonly dryRun: boolean
}

/** Removes what belongs to no living pod. Pods that run are left alone, also while no daemon does. */
export async function collectLeftovers(options: GcOptions): Promise<readonly Leftover[]> {
  const found: Leftover[] = []
  const take = async (leftover: Leftover, remove: () => Promise<unknown>): Promise<void> => {
    found.push(leftover)
    if (!options.dryRun) await remove()
  }
  const store = new PodStore(options.stateRoot)
  for (const record of store.load(() => undefined)) {
    const alive = record.relay !== undefined && (await isSameProcess(record.relay))
    if (!alive)
      await take({ kind: 'record', path: store.path(record.sandboxId) }, async () => store.remove(record.sandboxId))
  }
  for (const id of await listPodIds(options.stateRoot)) {
    const paths = podPaths(options.stateRoot, id)
    const record = await readPodRecord(paths).catch(() => undefined)
    if (record !== undefined && (await isOwned(record))) continue
    await take({ kind: 'machine', path: paths.directory }, () => removePod(paths))
  }
  for (const name of await readdir(join(options.snapshots, 'snapshots')).catch(() => [])) {
    if (!name.startsWith('.removed-')) continue
    const path = join(options.snapshots, 'snapshots', name)
    await take({ kind: 'snapshot', path }, () => rm(path, { recursive: true, force: true }))
  }
  return found
}
