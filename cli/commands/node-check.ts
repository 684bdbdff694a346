import { join } from 'node:path'
import { checkNode } from '#host-shim/install/check/check-node'
import type { Finding } from '#host-shim/install/check/finding'
import { findContainerd } from '#host-shim/install/install'
import { cacheDirectory } from '#tools/cache/location'
import type { CommandSpec } from '../command.ts'
import { EXIT_NO, EXIT_YES } from '../exit-code.ts'
import { layoutOf, NODE_OPTIONS } from '../node-options.ts'

export const nodeCheck: CommandSpec = {
  path: 'node check',
  summary:
    'Says what this machine lacks to run confidential pods, and how to mend it. Changes nothing. Exit code 0: pods can run; 1: something is missing.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    ...NODE_OPTIONS,
    'containerd-program': { type: 'string', placeholder: 'FILE', help: 'default: below the root, then on PATH' },
    platform: { type: 'string', placeholder: 'tpm|none', help: 'of pods that do not say', default: 'tpm' },
    accel: { type: 'string', placeholder: 'auto|kvm|tcg', help: 'kvm: emulation is not good enough', default: 'auto' },
    firmware: { type: 'string', placeholder: 'FILE', help: 'of platform tpm', default: '/usr/share/ovmf/OVMF.fd' },
  },
  examples: ['caisson node check', 'caisson node check --accel kvm --json'],
  run: async (invocation) => {
    const layout = layoutOf(invocation)
    const findings = await checkNode({
      layout,
      containerdProgram: invocation.string('containerd-program') ?? findContainerd(layout),
      needs: {
        platform: invocation.oneOf('platform', ['tpm', 'none']),
        accelerator: invocation.oneOf('accel', ['auto', 'kvm', 'tcg']),
        firmware: invocation.required('firmware'),
        stateRoot: layout.stateRoot,
        snapshots: layout.snapshots,
        guests: join(cacheDirectory(), 'guest'),
      },
    })
    const isReady = findings.every(({ status }) => status !== 'missing')
    invocation.out.result({ ready: isReady, findings }, [...findings.map(lines), summary(findings)].join('\n'))
    return isReady ? EXIT_YES : EXIT_NO
  },
}

function lines({ code, status, found, needed, remedy }: Finding): string {
  const first = `${status.padEnd(8)} ${code.padEnd(20)} ${found}`
  return remedy === undefined ? first : `${first}\n         needed: ${needed}\n         remedy: ${remedy}`
}

function summary(findings: readonly Finding[]): string {
  const count = (wanted: Finding['status']): number => findings.filter(({ status }) => status === wanted).length
  if (count('missing') > 0) return `not ready: ${count('missing')} of ${findings.length} needs are missing`
  return count('warning') === 0 ? 'ready' : `ready, with ${count('warning')} warnings`
}
