/**
 * Connections from the host to a port of the guest, over the Unix socket that `caisson-pod` serves:
 * `CONNECT <port>\n`, answered `OK <number>\n` (as Firecracker and Cloud Hypervisor do).
 */
import { connect, type Socket } from 'node:net'
import { AGENT_STREAM_PORT, STREAM_ACCEPTED, ticketLine } from '#protocol/agent-service'
import { UnavailableError } from '#protocol/errors'

const MAX_LINE_BYTES = 64
const DEFAULT_TIMEOUT_MS = 10_000

/**
 * A half-open capable stream to a vsock port, paused, with nothing of the handshake left in it.
 * @throws UnavailableError ERR_VSOCK_CONNECT, ERR_VSOCK_TIMEOUT
 */
export async function connectVsock(
  path: string,
  port: number,
  options: { readonly timeoutMs?: number } = {},
): Promise<Socket> {
  const socket = connect({ path, allowHalfOpen: true })
  try {
    socket.write(`CONNECT ${port}\n`)
    const line = await readLine(socket, options.timeoutMs ?? DEFAULT_TIMEOUT_MS)
    if (!/^OK [0-9]+\n$/.test(line)) throw refused(port, `answered ${JSON.stringify(line)}`)
    return socket
  } catch (error) {
    socket.destroy()
    throw error
  }
}

/**
 * A raw stream of the guest that was promised by a ticket.
 * @throws UnavailableError ERR_VSOCK_CONNECT, ERR_VSOCK_TIMEOUT, ERR_STREAM_REFUSED
 */
export async function redeemTicket(path: string, ticket: string): Promise<Socket> {
  const socket = await connectVsock(path, AGENT_STREAM_PORT)
  try {
    socket.write(ticketLine(ticket))
    if ((await readLine(socket, DEFAULT_TIMEOUT_MS)) === STREAM_ACCEPTED) return socket
  } catch (error) {
    socket.destroy()
    throw error
  }
  socket.destroy()
  throw new UnavailableError('ERR_STREAM_REFUSED', 'the guest refused the ticket of a stream', {
    hint: 'Tickets are valid once and for 30 s; try again',
  })
}

/** Up to and with the newline. What follows it stays in the socket. */
function readLine(socket: Socket, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    let seen = new Uint8Array(0)
    const finish = (act: () => void) => {
      clearTimeout(timer)
      socket.off('readable', take).off('end', ended).off('close', ended).off('error', failed)
      act()
    }
    const take = () => {
      const chunk: unknown = socket.read()
      if (!(chunk instanceof Uint8Array)) return
      seen = Buffer.concat([seen, chunk])
      const end = seen.indexOf(0x0a)
      if (end >= 0) {
        finish(() => {
          const rest = seen.subarray(end + 1)
          if (rest.byteLength > 0) socket.unshift(rest)
          resolve(Buffer.from(seen.subarray(0, end + 1)).toString('latin1'))
        })
      } else if (seen.byteLength > MAX_LINE_BYTES) {
        finish(() => reject(refused(undefined, 'answered with a line that is too long')))
      }
    }
    const ended = () => finish(() => reject(refused(undefined, 'closed the connection')))
    const failed = (cause: Error) => finish(() => reject(refused(undefined, cause.message, cause)))
    const timer = setTimeout(() => finish(() => reject(timedOut(timeoutMs))), timeoutMs)
    // Stays: an error after the handshake reaches whoever reads the stream as its end.
    socket.on('error', () => undefined)
    socket.on('readable', take).once('end', ended).once('close', ended).once('error', failed)
    take()
  })
}

function refused(port: number | undefined, how: string, cause?: unknown): UnavailableError {
  const target = port === undefined ? 'the guest' : `port ${port} of the guest`
  return new UnavailableError('ERR_VSOCK_CONNECT', `no connection to ${target}: it ${how}`, {
    hint: 'The VM ended, or the agent does not listen yet; see caisson ps',
    cause,
  })
}

function timedOut(timeoutMs: number): UnavailableError {
  return new UnavailableError('ERR_VSOCK_TIMEOUT', `the guest did not answer a connection in ${timeoutMs} ms`, {
    hint: 'The guest may be stopped or overloaded; see caisson ps',
  })
}
