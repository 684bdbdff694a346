/** What containerd asks of a task, asked of the guest: containers and processes are made, started and removed there. */
import { statfs } from 'node:fs/promises'
import { readImageConfig, sameImages } from '../containerd/image-config.ts'
import { GuestRefusalError } from '../pod/agent-client.ts'
import { ANNOTATION } from './annotations.ts'
import { readBundle } from './bundle.ts'
import { containerRequest, mountedVolumes } from './container-request.ts'
import { createInGuest, startInGuest } from './guest-steps.ts'
import type { NodePod } from './node-pod.ts'
import { openPorts } from './pod-ports.ts'
import type { TaskRecord } from './pod-record.ts'
import type { Process } from './processes.ts'
import { attach } from './stdio.ts'
import { taskStatus } from './task-errors.ts'

const TMPFS_MAGIC = 0x01021994

/** The pid that containerd is told. `again` after a daemon that may have asked already. */
export async function createContainer(pod: NodePod, task: TaskRecord, again: boolean): Promise<number> {
  const { containerd, record } = pod
  const bundle = await readBundle(task.bundle)
  const sandbox = await readBundle(record.bundle)
  const name = bundle.annotations[ANNOTATION.imageName] ?? ''
  const image = await readImageConfig(containerd, record.namespace, name)
  const volumes = await mountedVolumes(bundle.mounts, async (path) => (await statfs(path)).type === TMPFS_MAGIC)
  for (const { content } of volumes) if (content !== undefined) await pod.volumes.add(content)
  const request = containerRequest({
    containerId: task.id,
    bundle,
    image,
    hostname: sandbox.hostname,
    terminal: task.terminal,
    stdin: task.stdin !== '',
    volumes,
    disks: record.disks ?? [],
  })
  await createUnderItsName(pod, request, name, again)
  await openPorts(pod)
  return pod.pid()
}

/** Asks under the name that the pod says, and under others of the same image where the policy knows it by them. */
async function createUnderItsName(
  pod: NodePod,
  request: Awaited<ReturnType<typeof containerRequest>>,
  name: string,
  again: boolean,
): Promise<void> {
  const { containerd, record } = pod
  const { agent } = pod.guest()
  await createInGuest(agent, { ...request, image: name }, again).catch(async (error: unknown) => {
    // The policy names repositories. Where the same bytes have several names, the pod may have meant another one.
    if (!isDenied(error)) throw error
    for (const other of await sameImages(containerd, record.namespace, name)) {
      if (other === name) continue
      const failure: unknown = await createInGuest(agent, { ...request, image: other }, again).then(
        () => undefined,
        (reason: unknown) => reason,
      )
      if (failure === undefined) return
      // The policy knows this name, and the guest has another reason.
      if (!isDenied(failure)) throw failure
    }
    throw error
  })
}

function isDenied(error: unknown): boolean {
  return error instanceof GuestRefusalError && error.code === 'ERR_POLICY_DENIED'
}

/** The first process of a container, or an exec. */
export async function startProcess(pod: NodePod, process: Process, again: boolean): Promise<void> {
  const { task, execId, record } = process
  const guest = pod.guest()
  const relay = await pod.relay
  if (execId === '') {
    // Streams first, so that a process that ends at once loses nothing.
    if (record.streams.length === 0) await attach(process, guest, relay)
    await startInGuest(guest.agent, task.id, again)
    return
  }
  const { args, env, user, workingDir, terminal, stdin, window } = pod.processes.exec(task.id, execId)
  const request = { containerId: task.id, execId, args, env, user, workingDir, terminal, stdin: stdin !== '' }
  await guest.agent.exec(request).catch((error: unknown) => {
    if (!again || !(error instanceof Error && 'code' in error && error.code === 'ERR_PROCESS_EXISTS')) throw error
  })
  // The guest keeps what is written before somebody reads it.
  if (record.streams.length === 0) await attach(process, guest, relay)
  if (window !== undefined) await guest.agent.resize({ containerId: task.id, execId }, window[0], window[1])
}

/** What the guest knows no more has gone before: that is an error only where it cannot have. */
export async function deleteInGuest(pod: NodePod, { task, execId, record }: Process, again: boolean): Promise<void> {
  const { machine } = pod
  // With the machine went everything in it; an exec that was never started is nothing the guest knows of.
  if (machine === undefined || (execId !== '' && record.status === 'created')) return
  try {
    await machine.agent.delete(execId === '' ? { containerId: task.id } : { containerId: task.id, execId })
  } catch (error) {
    const unknown = taskStatus(error).code === 5
    if (!unknown && pod.machine !== undefined) throw error
    if (unknown && !again && execId === '' && record.status !== 'stopped') throw error
  }
}
