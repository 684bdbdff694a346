/** How commands reach servers: only CAs that the user names are trusted, names may be mapped to addresses. */
import type { JWK } from 'jose'
import type { VerifierAdminClient } from '#attestation/verifier/admin/client'
import { MalformedError, UsageError } from '#protocol/errors'
import { UndiciTransport } from '#protocol/node/http'
import type { Invocation, OptionSpec } from './command.ts'
import { readUserFile } from './files.ts'

export const SERVER_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  ca: { type: 'string', placeholder: 'FILE', multiple: true, help: 'PEM of a CA to trust; no other is trusted' },
  'add-host': { type: 'string', placeholder: 'NAME:IP', multiple: true, help: 'connect to this address for a name' },
}

export const ADMIN_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  ...SERVER_OPTIONS,
  url: { type: 'string', placeholder: 'URL', help: 'URL of the verifier; of a tenant, with /t/NAME' },
  'admin-key': {
    type: 'string',
    placeholder: 'FILE',
    help: 'administrator’s private key (`admin.key` of the verifier)',
  },
}

/** "name:address" words → map. The address may be IPv6. */
export function parseHosts(words: readonly string[]): Record<string, string> {
  const hosts: Record<string, string> = {}
  for (const word of words) {
    const colon = word.indexOf(':')
    if (colon < 1 || colon === word.length - 1) {
      throw new UsageError('ERR_USAGE', `--add-host ${JSON.stringify(word)} is not NAME:IP`, {
        hint: 'Example: --add-host registry.example:127.0.0.1',
      })
    }
    hosts[word.slice(0, colon)] = word.slice(colon + 1)
  }
  return hosts
}

export function transportOf(invocation: Invocation): UndiciTransport {
  const caPem = invocation.strings('ca').map((path) => readUserFile(path, 'CA certificate').toString('utf8'))
  const url = invocation.string('proxy')
  const noProxy = (invocation.string('no-proxy') ?? '').split(',').filter((name) => name !== '')
  const proxy = url === undefined ? {} : { proxy: { url, noProxy } }
  return new UndiciTransport({ caPem, hosts: parseHosts(invocation.strings('add-host')), ...proxy })
}

/** Runs `work` with a client of the verifier's administration and closes its connections. */
export async function withAdmin(
  invocation: Invocation,
  work: (client: VerifierAdminClient) => Promise<number>,
): Promise<number> {
  const url = invocation.required('url')
  const adminKey = await readAdminKey(invocation.required('admin-key'))
  // Loaded here, so that commands that only reach registries load neither it nor what it signs with.
  const { VerifierAdminClient } = await import('#attestation/verifier/admin/client')
  const http = transportOf(invocation)
  try {
    return await work(new VerifierAdminClient({ http, url, adminKey }))
  } finally {
    await http.close()
  }
}

async function readAdminKey(path: string): Promise<JWK> {
  try {
    const jwk = JSON.parse(readUserFile(path, 'administrator’s key').toString('utf8')) as JWK
    const { importJWK } = await import('jose')
    await importJWK(jwk, 'EdDSA')
    return jwk
  } catch (cause) {
    if (cause instanceof UsageError) throw cause
    throw new MalformedError('ERR_ADMIN_KEY', `${JSON.stringify(path)} holds no Ed25519 private key (JWK)`, {
      hint: 'Use the `admin.key` that `caisson verifier serve` wrote into its state directory.',
      cause,
    })
  }
}
