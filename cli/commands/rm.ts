import { removeOrphan } from '#host-shim/pod/control'
import { reconcilePods } from '#host-shim/pod/state-dir'
import { UsageError } from '#protocol/errors'
import type { CommandSpec } from '../command.ts'
import { STATE_OPTION, stateRootOf } from '../pods.ts'

export const rm: CommandSpec = {
  path: 'rm',
  summary:
    'Removes what crashed runs left on this machine: processes, sockets, disks, state. Running pods are left\nalone: `caisson stop` ends them.',
  operands: '[ID]',
  minOperands: 0,
  maxOperands: 1,
  options: { ...STATE_OPTION, all: { type: 'boolean', help: 'everything whose owner is gone' } },
  examples: ['caisson rm web-1f3a', 'caisson rm --all'],
  run: async (invocation) => {
    const root = stateRootOf(invocation)
    const [id] = invocation.operands
    if ((id === undefined) !== invocation.flag('all')) {
      throw new UsageError('ERR_USAGE', 'caisson rm needs an ID or --all', { hint: '`caisson ps` lists the IDs.' })
    }
    const removed = id === undefined ? await reconcilePods(root) : [id]
    if (id !== undefined) await removeOrphan(root, id)
    invocation.out.result({ removed }, removed.join('\n'))
    return 0
  },
}
