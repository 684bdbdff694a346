/** Where pods of this user lie, and how commands name them. */
import { homedir } from 'node:os'
import { connectPod, type PodHandle } from '#host-shim/pod/control'
import type { Invocation, OptionSpec } from './command.ts'
import { keepReason } from './sealed-reasons.ts'

export const STATE_OPTION: Readonly<Record<string, OptionSpec>> = {
  state: { type: 'string', placeholder: 'DIR', help: 'state directory of pods (default: $XDG_STATE_HOME/caisson)' },
}

export function stateRootOf(invocation: Invocation): string {
  const home = process.env.XDG_STATE_HOME ?? `${homedir()}/.local/state`
  return invocation.string('state') ?? `${home}/caisson`
}

/** Connects to the pod that operand 0 names, for the time of `work`. */
export async function withPod<T>(invocation: Invocation, work: (pod: PodHandle, id: string) => Promise<T>): Promise<T> {
  const id = invocation.operand(0)
  const stateRoot = stateRootOf(invocation)
  using pod = await connectPod(stateRoot, id)
  try {
    return await work(pod, id)
  } catch (error) {
    await keepReason(pod.agent, { stateRoot, error, out: invocation.out })
    throw error
  }
}
