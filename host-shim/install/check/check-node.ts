/** Says what a machine lacks to run confidential pods, and how to mend it. Changes nothing. */
import { readFile } from 'node:fs/promises'
import type { NodeLayout } from '../node-layout.ts'
import { checkContainerd } from './containerd.ts'
import type { Finding } from './finding.ts'
import { checkInstallation } from './installation.ts'
import { checkMachine, type MachineNeeds } from './machine.ts'

export interface NodeCheck {
  readonly layout: NodeLayout
  readonly needs: MachineNeeds
  readonly containerdProgram: string | undefined
}

export async function checkNode({ layout, needs, containerdProgram }: NodeCheck): Promise<readonly Finding[]> {
  const { finding, record } = checkInstallation(layout)
  // The lines that an installation wrote tell whether it gave containerd our snapshotter.
  const snapshotter = record === undefined || (await servesSnapshots(layout))
  return [...(await checkMachine(needs)), finding, ...(await checkContainerd(layout, containerdProgram, snapshotter))]
}

async function servesSnapshots(layout: NodeLayout): Promise<boolean> {
  const texts = await Promise.all(
    [layout.shimConfig, layout.unit].map((path) => readFile(path, 'utf8').catch(() => '')),
  )
  return texts.some((text) => text.includes('--guest-image'))
}
