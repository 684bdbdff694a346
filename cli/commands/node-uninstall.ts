import { uninstall } from '#host-shim/install/uninstall'
import type { CommandSpec } from '../command.ts'
import { layoutOf, NODE_OPTIONS } from '../node-options.ts'

export const nodeUninstall: CommandSpec = {
  path: 'node uninstall',
  summary:
    'Takes back what `caisson node install` changed on this machine, byte for byte; what others changed since stays. Images and the CA of software TPMs are left in /var/lib/caisson.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: { ...NODE_OPTIONS, force: { type: 'boolean', help: 'even while pods run; nobody serves them afterwards' } },
  examples: ['caisson node uninstall', 'caisson node uninstall --root /tmp/node'],
  run: async (invocation) => {
    const { wasInstalled, saved } = await uninstall(layoutOf(invocation), { evenWithPods: invocation.flag('force') })
    invocation.out.result(
      { wasInstalled, saved },
      [
        wasInstalled ? 'everything is as it was before; restart containerd' : 'nothing was installed',
        ...saved.map((path) => `somebody had changed a file of ours: kept as ${path}`),
      ].join('\n'),
    )
    return 0
  },
}
