/**
 * QEMU's control protocol: one JSON object per line. QEMU is our own child, but a busy or stuck one is silent, so every
 * command has a time limit, and a line has a maximal length.
 */
import type { Socket } from 'node:net'
import { UnavailableError } from '#protocol/errors'

export interface QmpEvent {
  readonly event: string
  readonly data: Readonly<Record<string, unknown>>
}

/** The commands this project uses, with their arguments and answers. */
export interface QmpCommands {
  readonly qmp_capabilities: { arguments: Record<string, never>; return: unknown }
  readonly 'query-status': { arguments: Record<string, never>; return: { status?: string; running?: boolean } }
  readonly cont: { arguments: Record<string, never>; return: unknown }
  readonly quit: { arguments: Record<string, never>; return: unknown }
}

const MAX_LINE_BYTES = 1024 * 1024
const DEFAULT_TIMEOUT_MS = 15_000

interface Pending {
  resolve(value: unknown): void
  reject(error: Error): void
}

export class QmpClient {
  readonly #socket: Socket
  readonly #pending = new Map<number, Pending>()
  readonly #onEvent: (event: QmpEvent) => void
  #nextId = 1
  #text = ''
  #greeted: (() => void) | undefined

  /** Resolves when the connection is gone. */
  readonly closed: Promise<void>

  private constructor(socket: Socket, onEvent: (event: QmpEvent) => void) {
    this.#socket = socket
    this.#onEvent = onEvent
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()))
    socket.on('error', () => undefined)
    socket.on('close', () => this.#failAll())
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => this.#receive(text))
  }

  /** Waits for the greeting and leaves capabilities negotiation. @throws UnavailableError ERR_QMP_TIMEOUT, ERR_QMP_CLOSED */
  static async open(
    socket: Socket,
    options: { readonly onEvent: (event: QmpEvent) => void; readonly timeoutMs?: number },
  ): Promise<QmpClient> {
    const client = new QmpClient(socket, options.onEvent)
    const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS
    const greeting = new Promise<void>((resolve) => {
      client.#greeted = resolve
    })
    await withTimeout(
      Promise.race([greeting, client.closed.then(() => Promise.reject(closedError()))]),
      timeoutMs,
      'greet',
    )
    await client.run('qmp_capabilities', {}, { timeoutMs })
    return client
  }

  /** @throws UnavailableError ERR_QMP_TIMEOUT, ERR_QMP_CLOSED, ERR_QMP_REFUSED */
  async run<Name extends keyof QmpCommands>(
    command: Name,
    args: QmpCommands[Name]['arguments'],
    options: { readonly timeoutMs?: number } = {},
  ): Promise<QmpCommands[Name]['return']> {
    const id = this.#nextId
    this.#nextId += 1
    const answer = new Promise<unknown>((resolve, reject) => this.#pending.set(id, { resolve, reject }))
    if (this.#socket.destroyed) this.#failAll()
    else this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`)
    try {
      return (await withTimeout(
        answer,
        options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
        command,
      )) as QmpCommands[Name]['return']
    } finally {
      this.#pending.delete(id)
    }
  }

  close(): void {
    this.#socket.destroy()
  }

  #receive(text: string): void {
    this.#text += text
    const lines = this.#text.split('\n')
    this.#text = lines.pop() ?? ''
    for (const line of lines) this.#receiveLine(line)
    if (this.#text.length > MAX_LINE_BYTES) this.#socket.destroy()
  }

  #receiveLine(line: string): void {
    const message = parseObject(line)
    if (message === undefined) return
    if ('QMP' in message) this.#greeted?.()
    else if (typeof message.event === 'string') {
      this.#onEvent({ event: message.event, data: isObject(message.data) ? message.data : {} })
    } else if (typeof message.id === 'number') this.#settle(message.id, message)
  }

  #settle(id: number, message: Readonly<Record<string, unknown>>): void {
    const pending = this.#pending.get(id)
    if (pending === undefined) return
    if (!('error' in message)) {
      pending.resolve(message.return)
      return
    }
    const error = isObject(message.error) ? message.error : {}
    pending.reject(new UnavailableError('ERR_QMP_REFUSED', `QEMU refused a command: ${JSON.stringify(error.desc)}`))
  }

  #failAll(): void {
    for (const pending of this.#pending.values()) pending.reject(closedError())
  }
}

async function withTimeout<T>(promise: Promise<T>, timeoutMs: number, what: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const expired = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      reject(
        new UnavailableError('ERR_QMP_TIMEOUT', `QEMU did not answer ${JSON.stringify(what)} in ${timeoutMs} ms`, {
          hint: 'The machine may be overloaded; look at its load, then try again',
        }),
      )
    }, timeoutMs)
  })
  try {
    return await Promise.race([promise, expired])
  } finally {
    clearTimeout(timer)
  }
}

function closedError(): UnavailableError {
  return new UnavailableError('ERR_QMP_CLOSED', 'QEMU closed its control connection')
}

function parseObject(line: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
