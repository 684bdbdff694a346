import { fsckErofs, loadGuest } from '#guest/build/build'
import { diffGuests } from '#guest/build/diff'
import { buildProgress } from '../build-progress.ts'
import type { CommandSpec } from '../command.ts'

export const guestDiff: CommandSpec = {
  path: 'guest diff',
  summary: 'Explains the difference of two built guests: manifests, packages, and the root file by file.',
  operands: 'DIRECTORY DIRECTORY',
  minOperands: 2,
  maxOperands: 2,
  options: {},
  examples: ['caisson guest diff ~/.cache/caisson/guest/ONE /tmp/other/caisson/guest/TWO'],
  run: async (invocation) => {
    const a = await loadGuest(invocation.operand(0))
    const b = await loadGuest(invocation.operand(1))
    const differences = await diffGuests(a, b, await fsckErofs(buildProgress(invocation.out)))
    const lines = differences.map((each) => `${each.what}\n  - ${each.a ?? 'absent'}\n  + ${each.b ?? 'absent'}`)
    invocation.out.result({ equal: differences.length === 0, differences }, lines.join('\n') || 'the guests are equal')
    return differences.length === 0 ? 0 : 1
  },
}
