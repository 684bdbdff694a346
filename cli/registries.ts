/** A registry client from command-line options. */
import { parseAuthFile } from '#image/auth/auth-file'
import type { CredentialSource } from '#image/registry/authorization'
import { RegistryClient } from '#image/registry/client'
import type { RegistryRoute } from '#image/registry/registries-conf'
import { UsageError } from '#protocol/errors'
import type { HttpTransport } from '#protocol/http-transport'
import { nodeCrypto } from '#protocol/node/crypto'
import type { Invocation, OptionSpec } from './command.ts'
import { SERVER_OPTIONS, transportOf } from './connections.ts'
import { readUserFile } from './files.ts'

export const REGISTRY_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  ...SERVER_OPTIONS,
  credentials: { type: 'string', placeholder: 'FILE', help: 'file with one line USER:PASSWORD for the registry' },
  'auth-file': { type: 'string', placeholder: 'FILE', help: 'auth.json with credentials per repository instead' },
  proxy: { type: 'string', placeholder: 'URL', help: 'HTTP proxy on the way to registries' },
  'no-proxy': { type: 'string', placeholder: 'HOSTS', help: 'hosts reached without it: a.example,.b.example' },
  'registries-conf': { type: 'string', placeholder: 'FILE', help: 'mirrors, locations and blocks (version 2)' },
}

/** Runs `work` with a client and closes its connections. */
export async function withRegistry(
  invocation: Invocation,
  work: (registry: RegistryClient, http: HttpTransport) => Promise<number>,
): Promise<number> {
  const credentials = credentialsOf(invocation)
  const route = await routeOf(invocation.string('registries-conf'))
  const http = transportOf(invocation)
  try {
    return await work(new RegistryClient({ http, crypto: nodeCrypto, ...credentials, ...route }), http)
  } finally {
    await http.close()
  }
}

/** The TOML reader is loaded for those who have such a file. */
async function routeOf(path: string | undefined): Promise<{ route?: RegistryRoute }> {
  if (path === undefined) return {}
  const { parseRegistriesConf, routeBy } = await import('#image/registry/registries-conf')
  return { route: routeBy(parseRegistriesConf(readUserFile(path, 'registries.conf').toString('utf8'))) }
}

function credentialsOf(invocation: Invocation): { credentials?: CredentialSource } {
  const [login, authFile] = [readCredentials(invocation.string('credentials')), invocation.string('auth-file')]
  if (login !== undefined && authFile !== undefined) {
    throw new UsageError('ERR_USAGE', '--credentials and --auth-file exclude each other')
  }
  if (login !== undefined) return { credentials: () => login }
  return authFile === undefined ? {} : { credentials: parseAuthFile(readUserFile(authFile, 'auth file')) }
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
