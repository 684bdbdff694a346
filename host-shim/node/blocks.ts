/**
 * The first words of every connection to the node's daemon, as `containerd-shim-caisson-v2` says them (node_client.h): a
 * verb, lines of `name value`, an empty line. What follows belongs to whom the verb names.
 */
import type { Socket } from 'node:net'
import { MalformedError } from '#protocol/errors'

export interface Block {
  readonly verb: string
  readonly fields: ReadonlyMap<string, string>
}

export const MAX_BLOCK_BYTES: number = 16 * 1024
const PATIENCE_MS = 30_000

/** Text of a block without its empty line. @throws MalformedError ERR_NODE_BLOCK */
export function parseBlock(text: string): Block {
  const [verb = '', ...lines] = text.split('\n')
  if (!/^[a-z-]{1,16}$/.test(verb)) throw malformed('it begins with no verb')
  const fields = new Map<string, string>()
  for (const line of lines) {
    const space = line.indexOf(' ')
    const name = line.slice(0, Math.max(0, space))
    if (!/^[a-z-]{1,32}$/.test(name)) throw malformed('it has a line that is no `name value`')
    if (fields.has(name)) throw malformed(`it says ${name} twice`)
    fields.set(name, line.slice(space + 1))
  }
  return { verb, fields }
}

/** A field that must be there. @throws MalformedError ERR_NODE_BLOCK */
export function field(block: Block, name: string): string {
  const value = block.fields.get(name)
  if (value === undefined || value === '') throw malformed(`${block.verb} lacks ${name}`)
  return value
}

/**
 * Reads the block of a new connection; what follows it stays in the socket. Undefined when the peer only looked whether
 * somebody listens.
 * @throws MalformedError ERR_NODE_BLOCK
 */
export function readBlock(socket: Socket): Promise<Block | undefined> {
  return new Promise((resolve, reject) => {
    let seen = Buffer.alloc(0)
    const finish = (act: () => void): void => {
      clearTimeout(timer)
      socket.off('readable', take).off('end', ended).off('close', ended)
      act()
    }
    const take = (): void => {
      const chunk: unknown = socket.read()
      if (!(chunk instanceof Uint8Array)) return
      seen = Buffer.concat([seen, chunk])
      const end = seen.indexOf('\n\n')
      if (end < 0) {
        if (seen.byteLength > MAX_BLOCK_BYTES) finish(() => reject(malformed('it is too long')))
        return
      }
      finish(() => {
        const rest = seen.subarray(end + 2)
        if (rest.byteLength > 0) socket.unshift(rest)
        try {
          resolve(parseBlock(seen.toString('utf8', 0, end)))
        } catch (error) {
          reject(error)
        }
      })
    }
    const ended = (): void =>
      finish(() => (seen.byteLength === 0 ? resolve(undefined) : reject(malformed('the connection ended within it'))))
    const timer = setTimeout(() => finish(() => reject(malformed('it did not come in time'))), PATIENCE_MS)
    socket.on('readable', take).once('end', ended).once('close', ended)
    take()
  })
}

function malformed(why: string): MalformedError {
  return new MalformedError(
    'ERR_NODE_BLOCK',
    `the block that opens a connection to the node's daemon is malformed: ${why}`,
    {
      hint: 'Shim and daemon are of different versions; run caisson node install again',
    },
  )
}
