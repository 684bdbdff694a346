/** Questions to a node's daemon from other programs of this machine. The mode of the socket is the only authority. */
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { UnavailableError } from '#protocol/errors'

const TIMEOUT_MS = 30_000

/** What changes nothing. */
export type Question = 'report' | 'metrics'

/** @throws UnavailableError ERR_NODE_DOWN */
export async function askDaemon(socketPath: string, question: Question): Promise<string> {
  const socket = connect({ path: socketPath, allowHalfOpen: true })
  socket.setTimeout(TIMEOUT_MS, () => socket.destroy(new Error('no answer')))
  try {
    socket.write(`${question}\n\n`)
    const answer = await text(socket)
    if (answer !== '') return answer
  } catch (cause) {
    throw down(socketPath, cause)
  } finally {
    socket.destroy()
  }
  throw down(socketPath)
}

function down(socketPath: string, cause?: unknown): UnavailableError {
  return new UnavailableError('ERR_NODE_DOWN', `no daemon of this node answers at ${socketPath}`, {
    hint: 'Start it: caisson node serve, or its service; --socket says where it listens',
    ...(cause === undefined ? {} : { cause }),
  })
}
