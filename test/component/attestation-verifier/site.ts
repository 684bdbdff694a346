/** A verifier with its own CA on a free loopback port, and what its administrator needs; everything ends with the test. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { type AdminKey, createAdminKey } from '#attestation/verifier/admin/authenticator'
import { VerifierAdminClient } from '#attestation/verifier/admin/client'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'
import { type RunningVerifier, startVerifier, type VerifierConfig } from '#attestation/verifier/verifier'
import { UndiciTransport } from '#protocol/node/http'

/** Fixed, so that it passes to other processes as text. */
export const STORE_KEY: Uint8Array = new Uint8Array(32).fill(7)

export interface Site {
  readonly verifier: RunningVerifier
  readonly storePath: string
  readonly http: UndiciTransport
  readonly admin: VerifierAdminClient
  readonly adminKey: AdminKey
  /** Of the CA of the verifier's certificate. */
  readonly caPem: string
  /** URL of a second verifier on the same store, in a process of its own. */
  readonly startSecond: () => Promise<string>
}

export async function startSite(t: ExecutionContext, config: Partial<VerifierConfig> = {}): Promise<Site> {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-verifier-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const ca = createCa({ name: 'test CA' })
  const tls = issueServerCertificate({ ca, names: ['verifier.test'], ips: ['127.0.0.1'] })
  const adminKey = createAdminKey()
  const storePath = join(directory, 'verifier.db')
  const settings = { storePath, storeKey: STORE_KEY, tls, adminKeys: [adminKey.publicJwk], ...config }
  const verifier = await startVerifier(settings)
  t.teardown(() => verifier.close())
  const http = new UndiciTransport({ caPem: [ca.certificatePem] })
  t.teardown(() => http.close())
  const admin = new VerifierAdminClient({ http, url: verifier.url, adminKey: adminKey.privateJwk })
  return {
    verifier,
    storePath,
    http,
    admin,
    adminKey,
    caPem: ca.certificatePem,
    startSecond: () => startProcess(t, settings),
  }
}

async function startProcess(t: ExecutionContext, settings: VerifierConfig): Promise<string> {
  const program = join(import.meta.dirname, 'verifier-process.ts')
  const child = spawn(process.execPath, [program, JSON.stringify({ ...settings, storeKey: undefined })], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  t.teardown(async () => {
    child.stdin.end()
    await exited
  })
  const [line]: string[] = await once(child.stdout.setEncoding('utf8'), 'data')
  return (line ?? '').trim()
}
