/** The life of `caisson run`: pod up, sandbox attested, container created, attached, waited for, everything removed. */
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { GuestRefusalError } from '#host-shim/pod/agent-client'
import { type AttachedStdio, attachStdio, forwardPort, type PortForward } from '#host-shim/pod/guest-streams'
import { type Pod, startPod } from '#host-shim/pod/pod'
import type { PodPlan } from '#host-shim/pod/pod-plan'
import { reconcilePods } from '#host-shim/pod/state-dir'
import { CAISSON_POD } from '#native/host/index'
import { UnavailableError } from '#protocol/errors'
import { RpcError } from '#protocol/ttrpc/status'
import { USER_NETWORK } from '#vmm/qemu/command-line'
import { parseHosts } from '../connections.ts'
import type { Output } from '../output.ts'
import { keepReason } from '../sealed-reasons.ts'
import { rawTerminal } from '../terminal.ts'
import { Interrupts } from './interrupts.ts'
import { followEvents, stamp, tellRoom } from './progress.ts'
import { type PublishedPort, parsePublish } from './published-port.ts'

/** What the user asks the guest for. The tenant's policy decides about all of it. */
export interface ContainerWish {
  readonly image: string
  readonly name: string
  readonly args: readonly string[] | undefined
  readonly env: readonly string[]
  readonly user: string
  readonly terminal: boolean
  readonly stdin: boolean
  /** NAME:IP, where IP may be `host-gateway`. */
  readonly hosts: readonly string[]
  /** [IP:]PORT:PORT */
  readonly publish: readonly string[]
}

const SIGTERM = 15
/** A VM whose agent is gone powers off within this time. */
const VM_END_MS = 15_000

export async function runPod(options: {
  plan: PodPlan
  wish: ContainerWish
  stateRoot: string
  out: Output
}): Promise<number> {
  const { plan, wish, out } = options
  const stateRoot = resolve(options.stateRoot)
  const ports = wish.publish.map(parsePublish)
  const hosts = Object.entries(parseHosts(wish.hosts)).map(([name, address]) => ({
    name,
    address: address === 'host-gateway' ? USER_NETWORK.gateways[0] : address,
  }))
  const removed = await reconcilePods(stateRoot)
  if (removed.length > 0) out.progress(`removed what earlier runs left: ${removed.join(', ')}`, { removed })

  const interrupted = new AbortController()
  using interrupts = new Interrupts(() =>
    interrupted.abort(
      new UnavailableError('ERR_INTERRUPTED', 'interrupted before the container ran', {
        hint: 'What was made has been removed; run it again',
      }),
    ),
  )
  const started = performance.now()
  const atMs = (): number => Math.round(performance.now() - started)
  await using pod = await startPod(plan, {
    stateRoot,
    podProgram: CAISSON_POD,
    signal: interrupted.signal,
    onStage: (stage) => out.progress(`${stamp(atMs())} ${stage}`, { stage, atMs: atMs() }),
    onDiskFull: tellRoom(out, atMs),
  })
  const events = followEvents(pod.agent, out, atMs)

  const vmEnded = pod.exited.then((exit) => {
    throw new UnavailableError('ERR_VM_EXITED', `the VM of ${plan.id} ended (${exit.signal ?? exit.code})`, {
      hint: 'If nobody stopped it, look at the console codes above and at the host’s kernel log.',
    })
  })
  vmEnded.catch(() => undefined) // also when nobody waits for it any more
  try {
    const served = serve(pod, { plan, wish, ports, hosts, out, atMs, interrupts })
    return await Promise.race([served, vmEnded, abortedBy(interrupted.signal)])
  } catch (error) {
    await keepReason(pod.agent, { stateRoot, error, out })
    // A connection that breaks is a consequence: the end of the VM is what happened.
    if (error instanceof RpcError && error.code === 'ERR_RPC_CLOSED')
      await Promise.race([vmEnded, sleep(VM_END_MS, undefined, { ref: false })])
    throw error
  } finally {
    await events.stop()
  }
}

/** Rejects when, and with what, the signal was aborted. */
function abortedBy(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason)
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
}

async function serve(
  pod: Pod,
  context: {
    plan: PodPlan
    wish: ContainerWish
    ports: readonly PublishedPort[]
    hosts: readonly { name: string; address: string }[]
    out: Output
    atMs: () => number
    interrupts: Interrupts
  },
): Promise<number> {
  const { plan, wish, out, atMs, interrupts } = context
  const containerId = plan.id
  await pod.agent.startSandbox({
    hostname: containerId,
    interfaces: [
      {
        mac: USER_NETWORK.mac,
        addresses: [...USER_NETWORK.addresses],
        gateways: [...USER_NETWORK.gateways],
        mtu: USER_NETWORK.mtu,
      },
    ],
    nameservers: [...USER_NETWORK.nameservers],
    hosts: [...context.hosts],
  })
  const { imageDigest } = await pod.agent.createContainer({
    containerId,
    name: wish.name,
    image: wish.image,
    ...(wish.args === undefined ? {} : { args: { values: [...wish.args] } }),
    env: [...wish.env],
    user: wish.user,
    terminal: wish.terminal,
    stdin: wish.stdin,
  })
  const stdio = await attach(pod, containerId, wish, out)
  await pod.agent.startContainer(containerId)
  await using forwards = new AsyncDisposableStack()
  const listening: { listen: number; guest: number }[] = []
  for (const { listen, port } of context.ports) {
    const forward: PortForward = forwards.use(
      await forwardPort(pod, { listen, port, onError: (error) => out.error(error) }),
    )
    listening.push({ listen: forward.port, guest: port })
    out.progress(`${stamp(atMs())} port ${forward.host}:${forward.port} -> ${port}`)
  }
  out.progress(`${stamp(atMs())} running ${containerId} ${imageDigest}`, {
    running: true,
    id: containerId,
    imageDigest,
    ports: listening,
    atMs: atMs(),
  })
  // The stop signal first; a second interrupt ends the VM.
  interrupts.mean(() => {
    pod.agent.signal({ containerId }, SIGTERM).catch(() => undefined)
    interrupts.mean(() => void pod.stop({ graceMs: 0 }))
  })
  using _terminal = rawTerminal(wish.terminal && wish.stdin, (columns, rows) => {
    pod.agent.resize({ containerId }, columns, rows).catch(() => undefined)
  })
  const { exitCode } = await pod.agent.wait({ containerId })
  await stdio?.drained
  stdio?.close()
  return exitCode
}

/** Output that the policy keeps in the guest is no reason not to run. */
async function attach(
  pod: Pod,
  containerId: string,
  wish: ContainerWish,
  out: Output,
): Promise<AttachedStdio | undefined> {
  try {
    return await attachStdio(
      pod,
      { containerId },
      {
        terminal: wish.terminal,
        stdout: process.stdout,
        stderr: process.stderr,
        ...(wish.stdin ? { stdin: process.stdin } : {}),
      },
    )
  } catch (error) {
    if (!(error instanceof GuestRefusalError) || error.kind !== 'denied' || wish.stdin || wish.terminal) throw error
    out.progress('output stays in the guest: the policy has no `logs: allow`')
    return undefined
  }
}
