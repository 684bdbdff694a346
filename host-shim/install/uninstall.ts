/** Takes an installation back. */

import { existsSync } from 'node:fs'
import { UsageError } from '#protocol/errors'
import { PodStore } from '../node/pod-record.ts'
import { isSameProcess } from '../pod/process-identity.ts'
import { InstallStore } from './install-record.ts'
import type { NodeLayout } from './node-layout.ts'
import { takeBack } from './transaction.ts'

export interface UninstallOptions {
  readonly evenWithPods?: boolean
  /** Runs once it is certain that files will be changed. */
  readonly beforehand?: () => Promise<void>
}

export interface Uninstalled {
  /** False: there was nothing to take back. */
  readonly wasInstalled: boolean
  /** Copies of files of ours that somebody had changed. */
  readonly saved: readonly string[]
}

/**
 * The node is byte for byte as before, except for what others changed since. Images and the CA of software TPMs stay.
 * @throws UsageError ERR_NODE_BUSY while pods run, MalformedError ERR_INSTALL_RECORD
 */
export async function uninstall(layout: NodeLayout, options: UninstallOptions = {}): Promise<Uninstalled> {
  const pods = options.evenWithPods === true ? [] : await runningPods(layout)
  if (pods.length > 0) {
    throw new UsageError('ERR_NODE_BUSY', `pods run on this node: ${pods.join(', ')}`, {
      hint: 'Drain the node first (kubectl drain), or leave them without anybody who serves them: --force',
    })
  }
  const store = new InstallStore(layout.installRecord)
  const wasInstalled = store.load() !== undefined
  if (wasInstalled) await options.beforehand?.()
  return { wasInstalled, saved: takeBack(store) }
}

async function runningPods({ stateRoot }: NodeLayout): Promise<readonly string[]> {
  if (!existsSync(`${stateRoot}/records`)) return []
  const running: string[] = []
  for (const { sandboxId, relay, machine } of new PodStore(stateRoot).load(() => undefined)) {
    for (const process of [relay, machine]) {
      if (process !== undefined && !running.includes(sandboxId) && (await isSameProcess(process)))
        running.push(sandboxId)
    }
  }
  return running
}
