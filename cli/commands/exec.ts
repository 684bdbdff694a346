import { randomBytes } from 'node:crypto'
import { attachStdio } from '#host-shim/pod/guest-streams'
import { UsageError } from '#protocol/errors'
import type { CommandSpec } from '../command.ts'
import { execExitCodeOf } from '../exit-code.ts'
import { STATE_OPTION, withPod } from '../pods.ts'
import { rawTerminal } from '../terminal.ts'

export const exec: CommandSpec = {
  path: 'exec',
  summary:
    'Runs a command in a container, if the policy permits exactly this command. Returns its exit\ncode; 126 when the guest refuses the command or cannot run it, 125 when something else fails.',
  operands: 'ID -- COMMAND [ARGS]',
  minOperands: 1,
  maxOperands: 1,
  options: {
    ...STATE_OPTION,
    tty: { type: 'boolean', short: 't', help: 'with a terminal (the policy must allow it)' },
    interactive: { type: 'boolean', short: 'i', help: 'connect standard input (the policy must allow it)' },
  },
  examples: ['caisson exec web-1f3a -- nginx -t'],
  run: async (invocation) => {
    const args = invocation.passthrough
    if (args === undefined || args.length === 0) {
      throw new UsageError('ERR_USAGE', 'caisson exec needs a command after --', {
        hint: 'Example: caisson exec web-1f3a -- nginx -t',
      })
    }
    try {
      return await withPod(invocation, async (pod, containerId) => {
        const process_ = { containerId, execId: `exec-${randomBytes(6).toString('hex')}` }
        const terminal = invocation.flag('tty')
        const stdin = invocation.flag('interactive')
        await pod.agent.exec({ ...process_, args: [...args], terminal, stdin })
        const stdio = await attachStdio(pod, process_, {
          terminal,
          stdout: process.stdout,
          stderr: process.stderr,
          ...(stdin ? { stdin: process.stdin } : {}),
        })
        using _terminal = rawTerminal(terminal && stdin, (columns, rows) => {
          pod.agent.resize(process_, columns, rows).catch(() => undefined) // the process may have ended just now
        })
        const { exitCode } = await pod.agent.wait(process_)
        await stdio.drained
        stdio.close()
        await pod.agent.delete(process_)
        return exitCode
      })
    } catch (error) {
      invocation.out.error(error)
      return execExitCodeOf(error)
    }
  },
}
