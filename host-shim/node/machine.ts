/**
 * The virtual machine of a Kubernetes pod. It belongs to the pod's relay, not to this daemon: a daemon that ends leaves it
 * running, and the next one adopts it.
 */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { UnavailableError } from '#protocol/errors'
import { AdoptedVm } from '#vmm/qemu/adopted-vm'
import { AgentClient } from '../pod/agent-client.ts'
import type { GuestAccess } from '../pod/guest-streams.ts'
import { startPod } from '../pod/pod.ts'
import type { PodPlan } from '../pod/pod-plan.ts'
import { identifyProcess, isSameProcess, type ProcessIdentity } from '../pod/process-identity.ts'
import { podPaths, removePod } from '../pod/state-dir.ts'
import { describeEnd } from './machine-end.ts'
import type { RelayControl } from './relay-control.ts'

const LOOK_MS = 500
const STOP_LOOK_MS = 20

export interface Machine extends GuestAccess {
  /** `caisson-pod`: the process whose end is the VM's. */
  readonly process: ProcessIdentity
  /** Resolves when the VM is gone, with what ended it, for people. */
  readonly exited: Promise<string>
  /** Asks the guest to end, waits `graceMs`, ends it; removes all its files. */
  stop(graceMs: number): Promise<void>
}

export interface MachineOptions {
  readonly stateRoot: string
  readonly podProgram: string
  readonly qemuProgram?: string | undefined
  readonly onStage?: (stage: string, atMs: number) => void
  readonly onDiskFull?: (full: boolean) => void
}

/** Boots the pod's VM. What an earlier attempt left under the same id is removed before. @throws what `startPod` throws */
export async function bootMachine(plan: PodPlan, relay: RelayControl, options: MachineOptions): Promise<Machine> {
  const { stateRoot, podProgram, qemuProgram, onStage, onDiskFull } = options
  const paths = podPaths(stateRoot, plan.id)
  await removePod(paths)
  const pod = await startPod(plan, {
    stateRoot,
    podProgram,
    ...(qemuProgram === undefined ? {} : { qemuProgram }),
    ...(onStage === undefined ? {} : { onStage }),
    ...(onDiskFull === undefined ? {} : { onDiskFull }),
    owner: { pid: relay.pid, leash: (directory) => makeLeash(directory, relay) },
  })
  const process = await identifyProcess(pod.vm.process.pid)
  if (process === undefined) {
    await pod.stop({ graceMs: 0 })
    throw new UnavailableError('ERR_VM_EXITED', 'the VM ended as soon as its agent had answered')
  }
  return {
    agent: pod.agent,
    vsock: pod.vsock,
    process,
    exited: pod.exited.then((exit) => describeEnd(exit, pod.vm)),
    stop: async (graceMs) => {
      await pod.stop({ graceMs })
    },
  }
}

/** Takes over a VM that an earlier daemon booted. @throws UnavailableError ERR_VSOCK_CONNECT, ERR_VSOCK_TIMEOUT */
export async function adoptMachine(
  podId: string,
  process: ProcessIdentity,
  options: Pick<MachineOptions, 'stateRoot' | 'onDiskFull'>,
): Promise<Machine> {
  const paths = podPaths(options.stateRoot, podId)
  // One that a stuck QEMU does not give: its guest is asked all the same.
  const vm = await AdoptedVm.connect(paths.directory, { onDiskFull: options.onDiskFull }).catch(() => undefined)
  // A guest that waits for room answers when there is some. Its pod can be removed before.
  const agent =
    vm?.waitsForRoom === true
      ? AgentClient.connectLater(paths.vsock, async () => !(await isSameProcess(process)))
      : await AgentClient.connect(paths.vsock)
  // Its console went to the daemon that booted it.
  const exited = gone(process, agent).then(() => 'nobody saw how')
  return {
    agent,
    vsock: paths.vsock,
    process,
    exited,
    stop: async (graceMs) => {
      agent.shutdown({ timeoutMs: Math.max(1, graceMs) }).catch(() => undefined)
      await Promise.race([exited, sleep(graceMs)])
      await removePod(paths)
      agent.close()
      vm?.[Symbol.dispose]()
    },
  }
}

/** The process is not our child, so the agent's connection is what tells; the process table confirms. */
async function gone(process: ProcessIdentity, agent: AgentClient): Promise<void> {
  let lookMs = LOOK_MS
  const closed = agent.closed.then(() => {
    lookMs = STOP_LOOK_MS
  })
  while (await isSameProcess(process)) await Promise.race([sleep(lookMs), ...(lookMs === LOOK_MS ? [closed] : [])])
}

/** A FIFO that the relay holds open: when the relay ends, by whatever cause, the VM ends. */
async function makeLeash(directory: string, relay: RelayControl): Promise<string> {
  const path = join(directory, 'leash')
  await promisify(execFile)('mkfifo', ['-m', '0600', path])
  await relay.hold(path)
  return path
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
