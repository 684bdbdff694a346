/** Host ends of vsock streams, as plain sockets. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

/** The guest's port could not be reached: the socket was closed without an answer. */
export class NotConnectedError extends Error {}

/** A stream to a port of the guest; half-open, not flowing. */
export async function dial(vsockPath: string, port: number): Promise<Socket> {
  const socket = connect({ path: vsockPath, allowHalfOpen: true })
  await once(socket, 'connect')
  socket.write(`CONNECT ${port}\n`)
  const line = await readLine(socket)
  if (line === undefined) {
    socket.destroy()
    throw new NotConnectedError(`port ${port} of the guest does not answer`)
  }
  if (!/^OK \d+$/.test(line)) throw new Error(`unexpected answer ${JSON.stringify(line)}`)
  return socket
}

/** Undefined at end of file. What follows the line stays in the socket. */
export async function readLine(socket: Socket): Promise<string | undefined> {
  let text = Buffer.alloc(0)
  for (;;) {
    const chunk: Buffer | null = socket.read()
    if (chunk !== null) {
      text = Buffer.concat([text, chunk])
      const newline = text.indexOf(10)
      if (newline >= 0) {
        socket.unshift(text.subarray(newline + 1))
        return text.toString('latin1', 0, newline)
      }
      continue
    }
    if (socket.readableEnded) return undefined
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const more = () => resolve(true)
    const over = () => resolve(false)
    socket.once('readable', more).once('end', over).once('error', over).once('close', over)
    const goesOn = await promise
    socket.off('readable', more).off('end', over).off('error', over).off('close', over)
    if (!goesOn) return undefined
  }
}

/** Everything until end of file. */
export async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of socket) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** Sends the bytes, ends the direction, and answers with the digest of what came back. */
export async function echoDigest(socket: Socket, bytes: Uint8Array): Promise<string> {
  const hash = createHash('sha256')
  socket.end(bytes)
  for await (const chunk of socket) hash.update(chunk as Buffer)
  return hash.digest('hex')
}

export function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** Listens where the guest's streams to a host port arrive. */
export async function listenForGuest(
  vsockPath: string,
  port: number,
  onStream: (socket: Socket) => void,
): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, onStream)
  server.listen({ path: `${vsockPath}_${port}`, backlog: 1024 })
  await once(server, 'listening')
  return server
}
