/**
 * `caisson-pod`, the native process of a pod: it serves the VM's vsock on a Unix socket and is QEMU's parent. It ends the
 * VM when we do (its standard input closes) and takes it along when it is killed itself.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { type PodEvent, parsePodEvent } from '#native/host/index'
import { errorText, UnavailableError } from '#protocol/errors'
import type { VmExit, VmProcess } from '#vmm/types'

/** The guest's context id. Each VM has a backend of its own, so all of them can have the same. */
const GUEST_CID = 3
const STDERR_CHARS = 8192

export interface PodProcess extends VmProcess {
  /** Resolves when the guest's vsock driver is up for the first time. */
  readonly guestConnected: Promise<void>
  /** What the VM or the guest did against the rules of the vsock device; at most 100. */
  readonly protocolErrors: readonly string[]
}

/** @throws UnavailableError ERR_PROGRAM_MISSING, ERR_POD_PROCESS */
export async function startPodProcess(options: {
  /** Path of the program `caisson-pod`. */
  readonly program: string
  readonly stateDir: string
  readonly vsock: string
  readonly vhost: string
  /** Receives QEMU's own messages. */
  readonly log: string
  /** QEMU's command line. */
  readonly argv: readonly string[]
  /** FIFO whose last writer's end ends the VM; without it, the end of this process does. */
  readonly leash?: string
  /** Path of the network namespace to run in; absent: this process's. */
  readonly networkNamespace?: string
}): Promise<PodProcess> {
  const { program, stateDir, vsock, vhost, log, argv } = options
  const args = [
    '--state-dir',
    stateDir,
    '--cid',
    String(GUEST_CID),
    '--vsock',
    vsock,
    '--vhost',
    vhost,
    '--log',
    log,
    '--',
    ...argv,
  ]
  const leash =
    options.leash === undefined ? undefined : await open(options.leash, constants.O_RDONLY | constants.O_NONBLOCK)
  // A group of its own: an interrupt from the terminal is for us, who then end the VM in order.
  const child = spawn(...within(options.networkNamespace, program, args), {
    stdio: [leash?.fd ?? 'pipe', 'pipe', 'pipe'],
    detached: true,
  })
  child.on('error', () => undefined)
  child.stdin?.on('error', () => undefined)
  if (child.stdout === null || child.stderr === null) throw new Error('pipes were asked for')
  let stderr = ''
  child.stderr.setEncoding('utf8')
  child.stderr.on('data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_CHARS)
  })

  let vmExit: { code: number | undefined; signal: string | undefined } | undefined
  const protocolErrors: string[] = []
  const started = Promise.withResolvers<void>()
  const guestConnected = Promise.withResolvers<void>()
  const take = (event: PodEvent) => {
    switch (event.event) {
      case 'vm-started':
        started.resolve()
        break
      case 'guest-connected':
        guestConnected.resolve()
        break
      case 'protocol-error':
        protocolErrors.push(event.reason)
        break
      case 'vm-exit':
        vmExit =
          'code' in event ? { code: event.code, signal: undefined } : { code: undefined, signal: String(event.signal) }
        break
      case 'listening':
      case 'guest-reset':
        break
    }
  }
  createInterface({ input: child.stdout }).on('line', (line) => {
    try {
      take(parsePodEvent(line))
    } catch (error) {
      // A program of another version: what it does cannot be followed, so the VM must not go on.
      stderr += `${errorText(error)}\n`
      child.kill('SIGKILL')
    }
  })
  const exited = new Promise<VmExit>((resolve) => {
    child.once('close', (code, signal) => {
      const how = vmExit ?? { code: code ?? undefined, signal: signal ?? undefined }
      void logTail(log).then((text) => resolve({ ...how, stderr: `${stderr}${text}` }))
    })
  })
  try {
    await once(child, 'spawn')
  } catch (cause) {
    throw new UnavailableError('ERR_PROGRAM_MISSING', `${program} cannot be started`, {
      hint: 'Build the native parts: node native/build.mjs',
      cause,
    })
  } finally {
    await leash?.close()
  }
  await Promise.race([started.promise, exited.then((exit) => Promise.reject(podProcessError(exit)))])
  return {
    pid: child.pid ?? 0,
    exited,
    guestConnected: guestConnected.promise,
    protocolErrors,
    kill: () => child.kill('SIGKILL'),
  }
}

/** nsenter replaces itself, so the child is the program whichever way. */
function within(namespace: string | undefined, program: string, args: string[]): [program: string, args: string[]] {
  return namespace === undefined ? [program, args] : ['nsenter', [`--net=${namespace}`, '--', program, ...args]]
}

async function logTail(path: string): Promise<string> {
  const file = await open(path, 'r').catch(() => undefined)
  if (file === undefined) return ''
  try {
    const { size } = await file.stat()
    const { buffer, bytesRead } = await file.read(
      Buffer.alloc(STDERR_CHARS),
      0,
      STDERR_CHARS,
      Math.max(0, size - STDERR_CHARS),
    )
    return buffer.toString('utf8', 0, bytesRead)
  } finally {
    await file.close()
  }
}

function podProcessError(exit: VmExit): UnavailableError {
  return new UnavailableError('ERR_POD_PROCESS', `caisson-pod ended before the VM started: ${exit.stderr.trim()}`, {
    hint: 'The text after the colon is its own; a state directory that is not writable is usual',
  })
}
