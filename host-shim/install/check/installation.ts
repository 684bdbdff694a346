/** Whether what `caisson node install` wrote is still there as it was written. */
import { errorText } from '#protocol/errors'
import { type InstallRecord, InstallStore } from '../install-record.ts'
import type { NodeLayout } from '../node-layout.ts'
import { isSame, stateOf } from '../paths.ts'
import { type Finding, lacking, ok } from './finding.ts'

export interface InstallationCheck {
  readonly finding: Finding
  /** What the installation wrote; undefined: nothing is installed, or its record is damaged. */
  readonly record: InstallRecord | undefined
}

export function checkInstallation(layout: NodeLayout): InstallationCheck {
  const needed = 'a complete installation'
  const store = new InstallStore(layout.installRecord)
  const remedyOf = { none: 'Run: caisson node install', again: 'Run it again: caisson node install' }
  const missing = (found: string, remedy: string): Finding =>
    lacking('installation', 'missing', { needed, found, remedy })
  try {
    const record = store.load()
    if (record === undefined) return { finding: missing('none', remedyOf.none), record }
    if (record.state !== 'installed') return { finding: missing('one that was cut short', remedyOf.again), record }
    const changed = record.entries.filter(({ path, after }) => !isSame(stateOf(path), after)).map(({ path }) => path)
    if (changed.length === 0)
      return { finding: ok('installation', needed, `${record.entries.length} files as they were written`), record }
    const found = `changed since: ${changed.join(', ')}`
    return {
      finding: lacking('installation', 'warning', {
        needed,
        found,
        remedy: `${remedyOf.again}; the operator’s own lines stay`,
      }),
      record,
    }
  } catch (error) {
    return { finding: missing(errorText(error), 'Look at the folder that the message names'), record: undefined }
  }
}
