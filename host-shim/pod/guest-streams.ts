/**
 * Raw streams of a guest: stdio of a process, logs, ports. Each is a vsock connection of its own, so that a slow reader
 * holds up nobody else.
 */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { UnavailableError } from '#protocol/errors'
import { type OpenStreamRequestSchema, StreamKind } from '#protocol/gen/agent_pb'
import type { AgentClient, ProcessName } from './agent-client.ts'
import { redeemTicket } from './vsock.ts'

/** How streams reach a guest; both a pod's owner and other processes have this. */
export interface GuestAccess {
  readonly agent: AgentClient
  /** Path of the pod's vsock socket. */
  readonly vsock: string
}

/** @throws GuestRefusalError when policy does not allow the stream; UnavailableError ERR_VSOCK_CONNECT, ERR_STREAM_REFUSED */
export async function openGuestStream(
  guest: GuestAccess,
  request: MessageInitShape<typeof OpenStreamRequestSchema>,
): Promise<Socket> {
  return redeemTicket(guest.vsock, await guest.agent.openStream(request))
}

export interface AttachedStdio {
  /** Resolves when all output has been written. */
  readonly drained: Promise<void>
  close(): void
}

/**
 * Connects the stdio of a process with local streams, which stay open afterwards. Attach before the process starts, so that
 * nothing is lost.
 */
export async function attachStdio(
  guest: GuestAccess,
  process: ProcessName,
  local: {
    readonly stdin?: Readable
    readonly stdout?: Writable
    readonly stderr?: Writable
    readonly terminal?: boolean
  },
): Promise<AttachedStdio> {
  const opened: Socket[] = []
  const open = async (kind: StreamKind) => {
    const socket = await openGuestStream(guest, { ...process, kind })
    opened.push(socket)
    return socket
  }
  const outputs: Promise<void>[] = []
  try {
    if (local.terminal === true) {
      const terminal = await open(StreamKind.TERMINAL)
      if (local.stdin !== undefined) feed(local.stdin, terminal)
      if (local.stdout !== undefined) outputs.push(drain(terminal, local.stdout))
    } else {
      if (local.stdout !== undefined) outputs.push(drain(await open(StreamKind.STDOUT), local.stdout))
      if (local.stderr !== undefined) outputs.push(drain(await open(StreamKind.STDERR), local.stderr))
      if (local.stdin !== undefined) {
        const stdin = await open(StreamKind.STDIN)
        stdin.resume()
        feed(local.stdin, stdin)
      }
    }
  } catch (error) {
    for (const socket of opened) socket.destroy()
    throw error
  }
  return {
    drained: Promise.all(outputs).then(() => undefined),
    close: () => {
      for (const socket of opened) {
        local.stdin?.unpipe(socket)
        socket.destroy()
      }
    },
  }
}

function feed(source: Readable, socket: Socket): void {
  source.pipe(socket)
  socket.once('close', () => source.unpipe(socket))
}

/** A stream that breaks ends the output: the exit code, not the stream, says how the process ended. */
async function drain(socket: Socket, target: Writable): Promise<void> {
  socket.pipe(target, { end: false })
  await finished(socket, { writable: false }).catch(() => undefined)
}

export interface PortForward extends AsyncDisposable {
  readonly host: string
  readonly port: number
}

const MAX_FORWARDED_CONNECTIONS = 512

/**
 * Listens on the host and carries each connection to a port of the sandbox, half-closes and back-pressure included.
 * @param options listen: "127.0.0.1:8443"; port 0 picks a free one
 * @throws UnavailableError ERR_PORT_FORWARD when the address cannot be listened on
 */
export async function forwardPort(
  guest: GuestAccess,
  options: { readonly listen: string; readonly port: number; readonly onError?: (error: unknown) => void },
): Promise<PortForward> {
  const { host, port } = parseListen(options.listen)
  const open = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (client) => {
    open.add(client)
    client.once('close', () => open.delete(client))
    client.on('error', () => undefined)
    openGuestStream(guest, { kind: StreamKind.PORT, port: options.port }).then(
      (remote) => join(client, remote),
      (error: unknown) => {
        client.resetAndDestroy()
        options.onError?.(error)
      },
    )
  })
  server.maxConnections = MAX_FORWARDED_CONNECTIONS
  await listen(server, host, port, options.listen)
  const address = server.address() as AddressInfo
  return {
    host: address.address,
    port: address.port,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const client of open) client.resetAndDestroy()
      await closed
    },
  }
}

/**
 * Pipes both ways; a pipe passes on the end of one direction. Where a side ends in the middle, the other one is cut off, and
 * a TCP client hears of it as a reset: it must not take half an answer for a whole one.
 */
function join(client: Socket, remote: Socket): void {
  if (client.destroyed) {
    remote.destroy()
    return
  }
  client.pipe(remote)
  remote.pipe(client)
  client.once('close', () => (client.readableEnded ? destroyWhenWritten(remote) : remote.destroy()))
  remote.once('close', () => (remote.readableEnded ? destroyWhenWritten(client) : client.resetAndDestroy()))
}

/** The other side is gone and everything it sent is on its way; what this side still sends has nowhere to go. */
function destroyWhenWritten(socket: Socket): void {
  if (socket.writableFinished) socket.destroy()
  else socket.once('finish', () => socket.destroy())
}

function parseListen(listenOn: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([^:[\]]+)):([0-9]{1,5})$/.exec(listenOn)
  const port = Number(match?.[3])
  const host = match?.[1] ?? match?.[2]
  if (host !== undefined && port <= 65_535) return { host, port }
  throw new UnavailableError('ERR_PORT_FORWARD', `${JSON.stringify(listenOn)} is not an address to listen on`, {
    hint: 'Write HOST:PORT, such as 127.0.0.1:8443',
  })
}

async function listen(server: Server, host: string, port: number, text: string): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ host, port }, resolve)
    })
  } catch (cause) {
    throw new UnavailableError('ERR_PORT_FORWARD', `cannot listen on ${text}`, {
      hint: 'Another program may use the port; choose another, or 0 for a free one',
      cause,
    })
  }
}
