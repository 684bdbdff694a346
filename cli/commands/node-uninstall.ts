import { existsSync } from 'node:fs'
import { PLACEHOLDER_IMAGE, removePlaceholder } from '#host-shim/containerd/placeholder'
import { SERVICE } from '#host-shim/install/node-layout'
import { uninstall } from '#host-shim/install/uninstall'
import type { CommandSpec } from '../command.ts'
import { layoutOf, NODE_OPTIONS } from '../node-options.ts'
import { servesRoot, systemctl } from '../systemd.ts'

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
    const layout = layoutOf(invocation)
    const isService = servesRoot(layout.root) && existsSync(layout.unit)
    const { wasInstalled, saved } = await uninstall(layout, {
      evenWithPods: invocation.flag('force'),
      beforehand: async () => {
        if (isService) await systemctl('stop', SERVICE)
      },
    })
    if (isService) await systemctl('daemon-reload')
    // A daemon that runs would bring it back.
    const removed = !wasInstalled || (isService && (await removePlaceholder(layout.containerdSocket)))
    const next = [
      ...(isService || !wasInstalled ? [] : ['end the daemon: caisson node serve']),
      ...(removed ? [] : [`ctr --namespace k8s.io images rm ${PLACEHOLDER_IMAGE}`]),
      ...(wasInstalled ? ['restart containerd'] : []),
    ]
    invocation.out.result(
      { wasInstalled, saved, next },
      [
        wasInstalled ? 'everything is as it was before' : 'nothing was installed',
        ...saved.map((path) => `somebody had changed a file of ours: kept as ${path}`),
        ...next.map((step) => `next: ${step}`),
      ].join('\n'),
    )
    return 0
  },
}
