/**
 * Starts QEMU and talks to it. Who the process's parent is, the caller decides with its launcher: `caisson-pod` in
 * production, a plain child in tests.
 */
import { chmod, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { UnavailableError } from '#protocol/errors'
import { ConsoleReader } from '../console-log.ts'
import type { ConsoleLog, LaunchOptions, ShutdownReason, Vm, VmExit, Vmm, VmPlan, VmProcess } from '../types.ts'
import { controlSockets, qemuCommandLine } from './command-line.ts'
import { QmpClient, type QmpEvent } from './qmp.ts'
import { RoomWait } from './room-wait.ts'

/** QEMU opens its control connection within this time; under load its start takes seconds. Milliseconds. */
const CONNECT_TIMEOUT_MS = 60_000
const DEFAULT_GRACE_MS = 5000

/**
 * Resolves when QEMU answers on its control connection and the guest's CPUs run.
 * @throws UsageError ERR_VM_PLAN, ERR_SOCKET_PATH
 * @throws UnavailableError ERR_VMM_FAILED when QEMU ended or stayed silent, with what it wrote
 */
async function launch(plan: VmPlan, options: LaunchOptions): Promise<Vm> {
  const argv = qemuCommandLine(plan, options.program)
  const sockets = controlSockets(plan.runDir)
  const log = new ConsoleReader(options.consoleFile)
  await using qmpDoor = await Door.open(sockets.qmp)
  await using consoleDoor = await Door.open(sockets.console)
  void consoleDoor.socket.then((socket) => {
    socket.on('data', (bytes: Uint8Array) => log.push(bytes))
    socket.on('error', () => undefined)
    socket.once('close', () => log.close())
  })
  const process = await options.launch(argv)
  const ended = process.exited.then((exit) => Promise.reject(qemuEnded(exit)))
  // Watched below; a later exit is the caller's to notice through `process.exited`.
  ended.catch(() => undefined)
  let expire: ReturnType<typeof setTimeout> | undefined
  const silent = new Promise<never>((_resolve, reject) => {
    expire = setTimeout(() => reject(qemuSilent()), CONNECT_TIMEOUT_MS)
  })
  try {
    const vm = new QemuVm(process, log, options.onDiskFull)
    const socket = await Promise.race([qmpDoor.socket, ended, silent])
    await Promise.race([vm.connect(socket), ended, silent])
    return vm
  } catch (error) {
    process.kill()
    const exit = await process.exited
    log.close()
    // QEMU closes its connection as it ends; the end tells more.
    throw error instanceof UnavailableError && error.code === 'ERR_QMP_CLOSED' ? qemuEnded(exit) : error
  } finally {
    clearTimeout(expire)
  }
}

export const qemu: Vmm = { name: 'qemu', launch }

class QemuVm implements Vm {
  readonly process: VmProcess
  readonly console: ConsoleLog
  #qmp: QmpClient | undefined
  #shutdownReason: ShutdownReason | undefined
  readonly #room: RoomWait

  constructor(process: VmProcess, log: ConsoleLog, onDiskFull: LaunchOptions['onDiskFull']) {
    this.process = process
    this.console = log
    this.#room = new RoomWait({ resume: async () => void (await this.#qmp?.run('cont', {})), onDiskFull })
  }

  get shutdownReason(): ShutdownReason | undefined {
    return this.#shutdownReason
  }

  get controlLost(): Promise<void> {
    return this.#qmp?.closed ?? Promise.resolve()
  }

  async connect(socket: Socket): Promise<void> {
    this.#qmp = await QmpClient.open(socket, { onEvent: (event) => this.#take(event), timeoutMs: CONNECT_TIMEOUT_MS })
    // QEMU waits for this (-S), so however short the guest's life is, why it ended is heard.
    await this.#qmp.run('cont', {})
  }

  async stop({ graceMs = DEFAULT_GRACE_MS }: { readonly graceMs?: number } = {}): Promise<VmExit> {
    const timer = setTimeout(() => this.process.kill(), graceMs)
    try {
      // A QEMU that is already ending, or too stuck to answer, is ended by the timer.
      await this.#qmp?.run('quit', {}, { timeoutMs: graceMs }).catch(() => undefined)
      return await this.process.exited
    } finally {
      clearTimeout(timer)
      this.#qmp?.close()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  #take({ event, data }: QmpEvent): void {
    // The first reason is the cause; what follows is QEMU tidying up.
    if (event === 'SHUTDOWN') this.#shutdownReason ??= String(data.reason)
    else if (event === 'GUEST_PANICKED') this.#shutdownReason ??= 'guest-panic'
    else this.#room.take({ event, data })
  }
}

/** Listens on a Unix socket for one connection; the path is gone once that came or the door is closed. */
class Door implements AsyncDisposable {
  readonly #server: Server
  readonly #path: string
  readonly socket: Promise<Socket>

  private constructor(server: Server, path: string) {
    this.#server = server
    this.#path = path
    this.socket = new Promise((resolve) => server.once('connection', resolve))
  }

  static async open(path: string): Promise<Door> {
    await rm(path, { force: true })
    const server = createServer()
    const door = new Door(server, path)
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(path, resolve)
    })
    await chmod(path, 0o600)
    return door
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close()
    await rm(this.#path, { force: true })
  }
}

function qemuEnded(exit: VmExit): UnavailableError {
  const how = exit.signal === undefined ? `code ${exit.code}` : `signal ${exit.signal}`
  return new UnavailableError(
    'ERR_VMM_FAILED',
    `QEMU ended before it could be controlled (${how}): ${exit.stderr.trim()}`,
    {
      hint: 'The text after the colon is QEMU’s own; a missing file, a refused option or too little memory is usual',
    },
  )
}

function qemuSilent(): UnavailableError {
  return new UnavailableError('ERR_VMM_FAILED', `QEMU did not connect within ${CONNECT_TIMEOUT_MS / 1000} s`, {
    hint: 'Look at the load of this machine, then try again',
  })
}
