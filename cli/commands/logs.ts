import { openGuestStream } from '#host-shim/pod/guest-streams'
import { StreamKind } from '#protocol/gen/agent_pb'
import type { CommandSpec } from '../command.ts'
import { STATE_OPTION, withPod } from '../pods.ts'

export const logs: CommandSpec = {
  path: 'logs',
  summary: 'Prints the output of a container, if its policy lets output leave the guest.',
  operands: 'ID',
  minOperands: 1,
  maxOperands: 1,
  options: { ...STATE_OPTION, follow: { type: 'boolean', short: 'f', help: 'go on until the container ends' } },
  examples: ['caisson logs web-1f3a', 'caisson logs --follow web-1f3a'],
  run: (invocation) =>
    withPod(invocation, async (pod, id) => {
      const stream = await openGuestStream(pod, {
        kind: StreamKind.LOGS,
        containerId: id,
        follow: invocation.flag('follow'),
      })
      for await (const chunk of stream) invocation.out.write(chunk as Uint8Array)
      return 0
    }),
}
