/**
 * One guest's kept-alive connection to a verifier: as little of HTTP/1.1 as its answers need, so that guests leave the
 * processor to the verifier and their own work does not pass for its latency.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'

export interface Answer {
  readonly status: number
  /** Of the session, or empty. */
  readonly cookie: string
  readonly body: string
  /** From the first byte sent to the last one received. */
  readonly ms: number
}

const END_OF_HEAD = '\r\n\r\n'

export class Connection {
  readonly #socket: Socket
  readonly #host: string
  #received: Buffer[] = []
  #answered: ((answer: Omit<Answer, 'ms'>) => void) | undefined
  #failed: ((error: Error) => void) | undefined

  private constructor(socket: Socket, host: string) {
    this.#socket = socket
    this.#host = host
    socket.setNoDelay(true)
    socket.on('data', (chunk) => this.#take(chunk))
    socket.on('error', (error) => this.#failed?.(error))
    socket.on('close', () => this.#failed?.(new Error('the verifier closed the connection')))
  }

  /** @param ca PEM, for https addresses */
  static async open(url: string, ca: string): Promise<Connection> {
    const { protocol, hostname, port, host } = new URL(url)
    const place = { host: hostname, port: Number(port) }
    const secure = protocol === 'https:'
    const socket = secure ? connectTls({ ...place, ca, servername: '' }) : connect(place)
    await once(socket, secure ? 'secureConnect' : 'connect')
    return new Connection(socket, host)
  }

  async post(path: string, body: string, cookie = ''): Promise<Answer> {
    const head = `POST ${path} HTTP/1.1\r\nhost: ${this.#host}\r\ncontent-type: application/json\r\n`
    const session = cookie === '' ? '' : `cookie: ${cookie}\r\n`
    return await this.#exchange(`${head}${session}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
  }

  async get(path: string, token: string): Promise<Answer> {
    return await this.#exchange(
      `GET ${path} HTTP/1.1\r\nhost: ${this.#host}\r\naccept: application/json\r\nauthorization: Bearer ${token}\r\n\r\n`,
    )
  }

  close(): void {
    this.#failed = undefined
    this.#socket.destroy()
  }

  async #exchange(request: string): Promise<Answer> {
    const start = performance.now()
    const answer = await new Promise<Omit<Answer, 'ms'>>((resolve, reject) => {
      this.#answered = resolve
      this.#failed = reject
      this.#socket.write(request)
    })
    return { ...answer, ms: performance.now() - start }
  }

  #take(chunk: Buffer): void {
    this.#received.push(chunk)
    const bytes = this.#received.length === 1 ? chunk : Buffer.concat(this.#received)
    this.#received = [bytes]
    const end = bytes.indexOf(END_OF_HEAD)
    if (end === -1) return
    const head = bytes.toString('latin1', 0, end)
    const body = bytes.subarray(end + END_OF_HEAD.length)
    if (body.length < Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? 0)) return
    this.#received = []
    this.#answered?.({
      status: Number(head.slice(9, 12)),
      cookie: /^set-cookie: ([^;\r]+)/im.exec(head)?.[1] ?? '',
      body: body.toString('utf8'),
    })
  }
}
