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
  /** Called each time the guest is stopped. */
  readonly onDiskFull?: (() => void) | undefined
  /** Milliseconds, default 5000. */
  readonly retryMs?: number
}

export class RoomWait {
  readonly #options: RoomWaitOptions
  #waits = false

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
    this.#options.onDiskFull?.()
    this.#later()
  }

  #later(): void {
    setTimeout(() => void this.#goOn(), this.#options.retryMs ?? RETRY_MS).unref()
  }

  async #goOn(): Promise<void> {
    // A write that fails again stops the guest anew, perhaps before it is heard here that the guest went on.
    this.#waits = false
    try {
      await this.#options.resume()
    } catch (error) {
      const gone = error instanceof UnavailableError && error.code === 'ERR_QMP_CLOSED'
      if (gone || this.#waits) return
      this.#waits = true
      this.#later()
    }
  }
}
