/**
 * The socket of whoever watches a node, in a folder of its own: who is given the folder can ask for the node's numbers, and
 * do nothing to its pods. What changes something is not known here.
 */
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { errorText } from '#protocol/errors'
import type { Question } from './ask-daemon.ts'
import { readBlock } from './blocks.ts'
import { listenPrivately } from './private-socket.ts'

export interface MonitorSocketOptions {
  readonly path: string
  readonly answers: Readonly<Record<Question, () => Promise<string>>>
  readonly log: (line: string) => void
}

export class MonitorSocket implements AsyncDisposable {
  readonly #server: Server
  readonly #connections = new Set<Socket>()
  readonly #options: MonitorSocketOptions

  private constructor(options: MonitorSocketOptions) {
    this.#options = options
    this.#server = createServer({ allowHalfOpen: true }, (socket) => void this.#take(socket))
  }

  static async listen(options: MonitorSocketOptions): Promise<MonitorSocket> {
    const monitor = new MonitorSocket(options)
    await listenPrivately(monitor.#server, options.path)
    return monitor
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve))
    for (const socket of this.#connections) socket.destroy()
    await closed
  }

  async #take(socket: Socket): Promise<void> {
    this.#connections.add(socket)
    socket.once('close', () => this.#connections.delete(socket))
    socket.on('error', () => undefined)
    const { answers, log } = this.#options
    try {
      const block = await readBlock(socket)
      if (block?.verb === 'report' || block?.verb === 'metrics') socket.end(await answers[block.verb]())
      else socket.destroy()
    } catch (error) {
      log(`a monitor's connection failed: ${errorText(error)}`)
      socket.destroy()
    }
  }
}

/** The monitor's own folder below the daemon's state. */
export function monitorSocketIn(stateRoot: string): string {
  return join(stateRoot, 'monitor', 'monitor.sock')
}
