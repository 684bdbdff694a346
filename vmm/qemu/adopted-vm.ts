/**
 * A VM that another process started, which is gone: QEMU keeps a control connection for whoever comes later. What is left to
 * do for it there is to let it go on when it waits for room.
 */
import { connect } from 'node:net'
import { controlSockets } from './command-line.ts'
import { QmpClient } from './qmp.ts'
import { RoomWait, type RoomWaitOptions } from './room-wait.ts'

/** Of QEMU: the guest was stopped by a write that failed. */
const STOPPED_BY_WRITE = 'io-error'

export class AdoptedVm implements Disposable {
  readonly #qmp: QmpClient
  readonly #room: RoomWait

  private constructor(qmp: QmpClient, room: RoomWait) {
    this.#qmp = qmp
    this.#room = room
  }

  /**
   * @param runDir of the VM's plan
   * @throws UnavailableError ERR_QMP_TIMEOUT, ERR_QMP_CLOSED when it ended
   */
  static async connect(runDir: string, options: Omit<RoomWaitOptions, 'resume'>): Promise<AdoptedVm> {
    const socket = connect(controlSockets(runDir).later)
    try {
      let qmp: QmpClient | undefined
      const room = new RoomWait({ ...options, resume: async () => void (await qmp?.run('cont', {})) })
      qmp = await QmpClient.open(socket, { onEvent: (event) => room.take(event) })
      const { status } = await qmp.run('query-status', {})
      if (status === STOPPED_BY_WRITE) room.begin()
      return new AdoptedVm(qmp, room)
    } catch (error) {
      socket.destroy()
      throw error
    }
  }

  /** Whether the guest stands still for want of room. */
  get waitsForRoom(): boolean {
    return this.#room.waits
  }

  /** Leaves the VM as it is. */
  [Symbol.dispose](): void {
    this.#qmp.close()
  }
}
