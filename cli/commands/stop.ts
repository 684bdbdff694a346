import { connectPod, type PodHandle, stopPod } from '#host-shim/pod/control'
import type { CommandSpec } from '../command.ts'
import { STATE_OPTION, stateRootOf } from '../pods.ts'

/** The guest knows the image's stop signal; the host need not. */
const STOP_SIGNAL = 0
const SIGKILL = 9

export const stop: CommandSpec = {
  path: 'stop',
  summary: 'Ends a container: its stop signal, then SIGKILL, then the VM. Everything it made on the host is removed.',
  operands: 'ID',
  minOperands: 1,
  maxOperands: 1,
  options: {
    ...STATE_OPTION,
    time: { type: 'string', short: 't', placeholder: 'SECONDS', help: 'how long each step may take', default: '10' },
  },
  examples: ['caisson stop web-1f3a', 'caisson stop --time 30 web-1f3a'],
  run: async (invocation) => {
    const id = invocation.operand(0)
    const root = stateRootOf(invocation)
    const graceMs = invocation.integer('time', 0, 3600) * 1000
    try {
      using pod = await connectPod(root, id)
      if (await endContainer(pod, id, graceMs)) invocation.out.progress(`container ${id} ended`)
    } catch {
      // The guest does not answer or the run is gone: what is left is ended from outside.
    }
    await stopPod(root, id, { graceMs: Math.max(graceMs, 1000) })
    invocation.out.result({ stopped: id }, id)
    return 0
  },
}

/** True when the container's first process ended; its owner then returns its exit code and ends the VM. */
async function endContainer(pod: PodHandle, containerId: string, graceMs: number): Promise<boolean> {
  for (const signal of [STOP_SIGNAL, SIGKILL]) {
    await pod.agent.signal({ containerId }, signal)
    const ended = await pod.agent.wait({ containerId }, { timeoutMs: Math.max(graceMs, 1) }).then(
      () => true,
      () => false,
    )
    if (ended) return true
  }
  return false
}
