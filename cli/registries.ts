/** A registry client from command-line options. */
import { RegistryClient } from '#image/registry/client'
import { UsageError } from '#protocol/errors'
import type { HttpTransport } from '#protocol/http-transport'
import { nodeCrypto } from '#protocol/node/crypto'
import type { Invocation, OptionSpec } from './command.ts'
import { SERVER_OPTIONS, transportOf } from './connections.ts'
import { readUserFile } from './files.ts'

export const REGISTRY_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  ...SERVER_OPTIONS,
  credentials: { type: 'string', placeholder: 'FILE', help: 'file with one line USER:PASSWORD for the registry' },
}

/** Runs `work` with a client and closes its connections. */
export async function withRegistry(
  invocation: Invocation,
  work: (registry: RegistryClient, http: HttpTransport) => Promise<number>,
): Promise<number> {
  const login = readCredentials(invocation.string('credentials'))
  const http = transportOf(invocation)
  try {
    const credentials = login === undefined ? {} : { credentials: () => login }
    return await work(new RegistryClient({ http, crypto: nodeCrypto, ...credentials }), http)
  } finally {
    await http.close()
  }
}

/** A file, because words of a command line are visible to every user of the machine. */
function readCredentials(path: string | undefined): { username: string; password: string } | undefined {
  if (path === undefined) return undefined
  const line = readUserFile(path, 'credentials').toString('utf8').trimEnd()
  const colon = line.indexOf(':')
  if (colon < 1 || line.includes('\n')) {
    throw new UsageError('ERR_USAGE', `${JSON.stringify(path)} is not one line USER:PASSWORD`, {
      hint: 'Write it with an editor, mode 0600.',
    })
  }
  return { username: line.slice(0, colon), password: line.slice(colon + 1) }
}
