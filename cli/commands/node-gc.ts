import { collectLeftovers } from '#host-shim/node/leftovers'
import type { CommandSpec } from '../command.ts'
import { NODE_PATH_OPTIONS, nodePaths } from '../node-paths.ts'

export const nodeGc: CommandSpec = {
  path: 'node gc',
  summary: 'Removes what crashed pods left on this node. Pods that run are left alone.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: { ...NODE_PATH_OPTIONS, 'dry-run': { type: 'boolean', help: 'only say what would be removed' } },
  examples: ['caisson node gc --dry-run'],
  run: async (invocation) => {
    const { stateRoot, snapshots } = nodePaths(invocation)
    const dryRun = invocation.flag('dry-run')
    const leftovers = await collectLeftovers({ stateRoot, snapshots, dryRun })
    const verb = dryRun ? 'would remove' : 'removed'
    const lines = leftovers.map(({ kind, path }) => `${verb} ${kind} ${path}`)
    invocation.out.result({ dryRun, leftovers }, lines.length === 0 ? 'nothing is left over' : lines.join('\n'))
    return 0
  },
}
