/** Listeners that Node has no classes for: AF_VSOCK, and Unix sockets that pass descriptors. */
import { check, errnoName, native, type Poller, READABLE, SyscallError } from './binding.ts'

const EAGAIN = -11
const ECONNABORTED = -103

/** A listening descriptor; `accept` waits for the next connection, null once closed. */
export class Listener {
  readonly #fd: number
  readonly #poller: Poller
  #wake: (() => void) | undefined
  #closed = false

  /** Takes over `fd`. */
  constructor(fd: number) {
    this.#fd = fd
    this.#poller = new (native().Poller)(fd, () => this.#ready())
  }

  /** One caller at a time. The descriptor is the caller's. */
  async accept(): Promise<number | null> {
    while (!this.#closed) {
      const accepted = native().accept(this.#fd)
      if (accepted >= 0) return accepted
      // A peer that left before it was accepted is no failure of the listener.
      if (accepted === ECONNABORTED) continue
      if (accepted !== EAGAIN) throw new SyscallError('accept', errnoName(accepted))
      await new Promise<void>((wake) => {
        this.#wake = wake
        this.#poller.arm(READABLE)
      })
    }
    return null
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#poller.close()
    native().close(this.#fd)
    this.#ready()
  }

  #ready(): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }
}

/** @throws SyscallError */
export function listenVsock(port: number, backlog = 128): Listener {
  return new Listener(check('vsock listen', native().vsockListen(port, backlog)))
}

/** Replaces a file at `path`. @throws SyscallError */
export function listenUnix(path: string): Listener {
  return new Listener(check('unix listen', native().unixListen(path)))
}

/** Waits for one message and takes the one descriptor in it, which is the caller's. Closes `connection`. */
export async function receiveDescriptor(connection: number): Promise<number> {
  try {
    await once(connection, READABLE)
    return check('receive descriptor', native().receiveDescriptor(connection))
  } finally {
    native().close(connection)
  }
}

/** Waits until `fd` is ready once; leaves it open. */
export async function once(fd: number, events: number): Promise<void> {
  let poller: Poller | undefined
  try {
    await new Promise<void>((resolve) => {
      poller = new (native().Poller)(fd, () => resolve())
      poller.arm(events)
    })
  } finally {
    poller?.close()
  }
}
