/** The standard streams of a process, from containerd's FIFOs to the guest: the relay carries them, this sets them up. */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { UnavailableError } from '#protocol/errors'
import { StreamKind } from '#protocol/gen/agent_pb'
import { GuestRefusalError } from '../pod/agent-client.ts'
import type { GuestAccess } from '../pod/guest-streams.ts'
import type { Process } from './processes.ts'
import type { RelayControl } from './relay-control.ts'

/** How long the rest of a process's output may take on its way to a reader that does not read. Milliseconds. */
const DRAIN_MS = 10_000
const URI = /^(?<scheme>[a-z][a-z0-9+-]*):\/\/(?<path>.*)$/

/** Connects all streams that containerd asked for. Output that policy keeps in the guest ends at once. */
export async function attach(process: Process, guest: GuestAccess, relay: RelayControl): Promise<void> {
  const { task, execId, record } = process
  const stdin = localPath(record.stdin)
  const stdout = localPath(record.stdout)
  const stderr = localPath(record.stderr)
  const connect = async (
    kind: StreamKind,
    streams: { input?: string | undefined; output?: string | undefined },
  ): Promise<void> => {
    const token = `${task.id}/${execId}/${kind}`
    try {
      const ticket = await guest.agent.openStream({ kind, containerId: task.id, execId })
      await relay.openStream(token, { vsock: guest.vsock, ticket, ...streams })
      record.streams.push(token)
    } catch (error) {
      if (!(error instanceof GuestRefusalError) || error.kind !== 'denied' || streams.output === undefined) throw error
      await endOutput(streams.output)
    }
  }
  if (record.terminal) {
    await connect(StreamKind.TERMINAL, { input: stdin, output: stdout })
    return
  }
  if (stdout !== undefined) await connect(StreamKind.STDOUT, { output: stdout })
  if (stderr !== undefined) await connect(StreamKind.STDERR, { output: stderr })
  if (stdin !== undefined) await connect(StreamKind.STDIN, { input: stdin })
}

/** containerd will write no more. */
export function closeInput({ record }: Process, relay: RelayControl): void {
  for (const token of record.streams) relay.closeInput(token)
}

/** Resolves when all output has been written, or nobody takes it; then lets go of the streams. */
export async function detach({ record }: Process, relay: RelayControl | undefined): Promise<void> {
  if (relay === undefined) return
  const isInput = (token: string): boolean => token.endsWith(`/${StreamKind.STDIN}`)
  const outputs = record.streams.filter((token) => !isInput(token)).map((token) => relay.ended(token))
  let timer: ReturnType<typeof setTimeout> | undefined
  const patience = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, DRAIN_MS)
  })
  await Promise.race([Promise.all(outputs), patience])
  clearTimeout(timer)
  for (const token of record.streams.splice(0)) relay.drop(token)
}

/** A FIFO that was opened for writing and closed again is at its end for whoever reads it. */
async function endOutput(path: string): Promise<void> {
  const file = await open(path, constants.O_RDWR | constants.O_NONBLOCK).catch(() => undefined)
  await file?.close()
}

/** @throws UnavailableError ERR_STDIO_SCHEME */
function localPath(address: string): string | undefined {
  if (address === '') return undefined
  const { scheme, path } = URI.exec(address)?.groups ?? {}
  if (scheme === undefined) return address
  if (scheme === 'fifo' || scheme === 'file') return path
  throw new UnavailableError('ERR_STDIO_SCHEME', `standard streams of the kind ${scheme} are not offered`, {
    hint: 'Use FIFOs or files, as containerd’s CRI plugin does',
  })
}
