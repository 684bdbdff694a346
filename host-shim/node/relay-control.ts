/**
 * The daemon's side of the control connection that the relay of a pod holds (relay.h lists the lines). The relay lives as
 * long as the pod; this daemon and its successors come and go.
 */
import type { Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { UnavailableError } from '#protocol/errors'

export interface RelayStream {
  /** Socket of the VM's vsock device. */
  readonly vsock: string
  /** Opens the guest's stream. */
  readonly ticket: string
  /** FIFO to read from. */
  readonly input?: string | undefined
  /** FIFO or file to write to. */
  readonly output?: string | undefined
}

export class RelayControl {
  readonly #socket: Socket
  readonly #live = new Map<string, { readonly ended: Promise<void>; readonly end: () => void }>()
  readonly #asked = new Map<string, { resolve: () => void; reject: (error: Error) => void }>()
  readonly #ready = Promise.withResolvers<void>()
  /** Resolves when the relay is gone. */
  readonly closed: Promise<void>
  readonly pid: number
  /** Told of each client of a port: its name and the port. Clients that came before anybody listened are told then. */
  #onClient: ((client: string, port: number) => void) | undefined
  readonly #clients: [client: string, port: number][] = []

  constructor(socket: Socket, pid: number) {
    this.#socket = socket
    this.pid = pid
    this.#ready.promise.catch(() => undefined)
    socket.on('error', () => undefined)
    createInterface({ input: socket }).on('line', (line) => this.#take(line))
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#ready.reject(lost())
        for (const { reject } of this.#asked.values()) reject(lost())
        this.#asked.clear()
        for (const { end } of this.#live.values()) end()
        resolve()
      })
    })
  }

  /** Resolves when the relay has said which streams it has. @throws UnavailableError ERR_RELAY_LOST */
  get ready(): Promise<void> {
    return this.#ready.promise
  }

  /** @throws UnavailableError ERR_RELAY_REFUSED, ERR_RELAY_LOST */
  async openStream(token: string, { vsock, ticket, input = '-', output = '-' }: RelayStream): Promise<void> {
    this.#track(token)
    try {
      await this.#ask(token, ['open', token, vsock, ticket, input, output])
    } catch (error) {
      this.#end(token)
      throw error
    }
  }

  /** Resolves when all of a stream has been written, at once when there is no such stream. */
  ended(token: string): Promise<void> {
    return this.#live.get(token)?.ended ?? Promise.resolve()
  }

  closeInput(token: string): void {
    this.#say(['close-input', token])
  }

  /** Lets go of a stream, whatever it still holds. */
  drop(token: string): void {
    this.#say(['drop', token])
    this.#end(token)
  }

  /** The relay keeps a FIFO open until it ends. @throws UnavailableError ERR_RELAY_REFUSED, ERR_RELAY_LOST */
  hold(path: string): Promise<void> {
    return this.#ask(path, ['hold', path])
  }

  set onClient(told: (client: string, port: number) => void) {
    this.#onClient = told
    for (const [client, port] of this.#clients.splice(0)) told(client, port)
  }

  /** Clients may connect to this port of the pod's loopback; asked for again, nothing changes. */
  listen(port: number, network: string): Promise<void> {
    const token = `port/${port}`
    return this.#ask(token, ['listen', token, network, String(port)])
  }

  /** Joins a client with a stream of the guest. @throws UnavailableError ERR_RELAY_REFUSED, ERR_RELAY_LOST */
  async joinClient(client: string, { vsock, ticket }: Pick<RelayStream, 'vsock' | 'ticket'>): Promise<void> {
    const token = `client/${client}`
    this.#track(token)
    try {
      await this.#ask(token, ['join', token, vsock, ticket, client])
    } catch (error) {
      this.#end(token)
      throw error
    }
  }

  refuseClient(client: string): void {
    this.#say(['refuse', client])
  }

  closePorts(): void {
    this.#say(['close-ports'])
  }

  /** The relay ends when containerd has its answers. */
  end(): void {
    this.#say(['end'])
  }

  #ask(what: string, words: readonly string[]): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) return reject(lost())
      this.#asked.set(what, { resolve, reject })
      this.#say(words)
    })
  }

  #say(words: readonly string[]): void {
    // Paths are containerd's; one that cannot be said in a line never comes from it.
    if (words.some((word) => /[\t\n]/.test(word))) throw refused(words.join(' '), 'a name with a tab or a newline')
    this.#socket.write(`${words.join('\t')}\n`)
  }

  #take(line: string): void {
    const [verb = '', what = '', text = ''] = line.split('\t')
    const asked = this.#asked.get(what)
    switch (verb) {
      case 'stream':
        this.#track(what)
        break
      case 'ready':
        this.#ready.resolve()
        break
      case 'client':
        if (this.#onClient === undefined) this.#clients.push([what, Number(text)])
        else this.#onClient(what, Number(text))
        break
      case 'ended':
        this.#end(what)
        break
      case 'opened':
      case 'held':
        this.#asked.delete(what)
        asked?.resolve()
        break
      case 'failed':
        this.#asked.delete(what)
        asked?.reject(refused(what, text))
        break
    }
  }

  #track(token: string): void {
    const { promise: ended, resolve: end } = Promise.withResolvers<void>()
    this.#live.set(token, { ended, end })
  }

  #end(token: string): void {
    this.#live.get(token)?.end()
    this.#live.delete(token)
  }
}

function lost(): UnavailableError {
  return new UnavailableError('ERR_RELAY_LOST', 'the relay of the pod is gone', {
    hint: 'Its end is the end of the pod; look at why the process containerd-shim-caisson-v2 ended',
  })
}

function refused(what: string, why: string): UnavailableError {
  return new UnavailableError('ERR_RELAY_REFUSED', `the relay of the pod cannot open ${what}: ${why}`, {
    hint: 'containerd makes the FIFOs of a container; one that is missing was removed in the meantime',
  })
}
