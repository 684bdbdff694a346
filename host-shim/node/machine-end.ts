/** How a machine ended that nobody ended, in words for people: in the daemon's log, in errors, and where a kubelet looks. */
import { UnavailableError } from '#protocol/errors'
import { RpcError } from '#protocol/ttrpc/status'
import type { Vm, VmExit } from '#vmm/types'

/** Between the loss of the agent's connection and the end of the machine's process. Milliseconds. */
const END_MS = 5000

/** What PID 1 of the guest and the monitor saw. The guest's words are its own: they explain, and decide nothing. */
export function describeEnd(exit: VmExit, vm: Pick<Vm, 'shutdownReason' | 'console'>): string {
  const { shutdownReason: reason } = vm
  if (reason === 'guest-panic') return 'the kernel of its guest panicked'
  if (vm.console.codes.includes('agent-died')) return 'the agent in its guest died, usually for lack of memory'
  if (reason === 'guest-shutdown') return 'its guest powered off'
  return exit.signal === undefined
    ? `${reason ?? 'QEMU ended'}, code ${exit.code ?? 0}`
    : `QEMU was ended by signal ${exit.signal}`
}

/** An error of a call that was cut off, by what cut it off; any other as it is. `ended` resolves when the machine has ended. */
export async function causeOf(error: unknown, ended: Promise<string> | undefined): Promise<unknown> {
  if (!(error instanceof RpcError) || error.code !== 'ERR_RPC_CLOSED' || ended === undefined) return error
  let timer: ReturnType<typeof setTimeout> | undefined
  const patience = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, END_MS, undefined)
  })
  const why = await Promise.race([ended, patience])
  clearTimeout(timer)
  return why === undefined ? error : machineEnded(why)
}

function machineEnded(why: string): UnavailableError {
  return new UnavailableError('ERR_VM_EXITED', `the machine of the pod has ended: ${why}`, {
    hint: 'A new pod is needed. If nobody stopped it, look at the memory of pod and node, and at the node’s kernel log',
  })
}
