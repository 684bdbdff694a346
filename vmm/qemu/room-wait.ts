/**
 * A VM whose host has no room for what it writes. QEMU stops the guest, keeps the write and repeats it when the guest goes
 * on, so nothing is lost; it does not go on by itself.
 */
import { UnavailableError } from '#protocol/errors'
import type { QmpEvent } from './qmp.ts'

/** Between two tries of a write that found the host's disk full. Milliseconds. */
const RETRY_MS = 5000

export interface RoomWaitOptions {
  /** Lets the guest's CPUs run. */
  readonly resume: () => Promise<void>
  /** Called with true when the guest is stopped, and with false when it has found room: not for the tries in between. */
  readonly onDiskFull?: ((full: boolean) => void) | undefined
  /** Between two tries, and how long a guest must run to have found room. Milliseconds, default 5000. */
  readonly retryMs?: number
}

export class RoomWait {
  readonly #options: RoomWaitOptions
  #waits = false
  /** Somebody was told that the disk is full, and not yet that there is room. */
  #told = false
  #settling: NodeJS.Timeout | undefined

  constructor(options: RoomWaitOptions) {
    this.#options = options
  }

  /** Whether the guest stands still for want of room. */
  get waits(): boolean {
    return this.#waits
  }

  take({ event, data }: QmpEvent): void {
    if (event === 'BLOCK_IO_ERROR' && data.action === 'stop') this.begin()
  }

  /** The guest stands still. */
  begin(): void {
    if (this.#waits) return
    this.#waits = true
    clearTimeout(this.#settling)
    this.#tell(true)
    this.#later()
  }

  #tell(full: boolean): void {
    if (this.#told === full) return
    this.#told = full
    this.#options.onDiskFull?.(full)
  }

  #later(): void {
    this.#after(() => void this.#goOn())
  }

  #after(act: () => void): NodeJS.Timeout {
    return setTimeout(act, this.#options.retryMs ?? RETRY_MS).unref()
  }

  async #goOn(): Promise<void> {
    // A write that fails again stops the guest anew, perhaps before it is heard here that the guest went on.
    this.#waits = false
    try {
      await this.#options.resume()
      // The write that failed is repeated now: only when it is not heard of again, there was room for it.
      if (!this.#waits) this.#settling = this.#after(() => this.#tell(false))
    } catch (error) {
      const gone = error instanceof UnavailableError && error.code === 'ERR_QMP_CLOSED'
      if (gone || this.#waits) return
      this.#waits = true
      this.#later()
    }
  }
}
