/** A verifier with its own CA on a free loopback port, and what its administrator needs; everything ends with the test. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { type AdminKey, createAdminKey } from '#attestation/verifier/admin-auth'
import { VerifierAdminClient } from '#attestation/verifier/admin-client'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'
import { type RunningVerifier, startVerifier, type VerifierConfig } from '#attestation/verifier/verifier'
import { UndiciTransport } from '#protocol/node/http'

export interface Site {
  readonly verifier: RunningVerifier
  readonly storePath: string
  readonly http: UndiciTransport
  readonly admin: VerifierAdminClient
  readonly adminKey: AdminKey
  /** Another process's view: the same store and keys behind another listener. */
  startSecond(config?: Partial<VerifierConfig>): Promise<RunningVerifier>
}

export async function startSite(t: ExecutionContext, config: Partial<VerifierConfig> = {}): Promise<Site> {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-verifier-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const ca = createCa({ name: 'test CA' })
  const tls = issueServerCertificate({ ca, names: ['verifier.test'], ips: ['127.0.0.1'] })
  const adminKey = createAdminKey()
  const storePath = join(directory, 'verifier.db')
  const start = async (more: Partial<VerifierConfig>): Promise<RunningVerifier> => {
    const verifier = await startVerifier({ storePath, tls, adminKeys: [adminKey.publicJwk], ...config, ...more })
    t.teardown(() => verifier.close())
    return verifier
  }
  const verifier = await start({})
  const http = new UndiciTransport({ caPem: [ca.certificatePem] })
  t.teardown(() => http.close())
  const admin = new VerifierAdminClient({ http, url: verifier.url, adminKey: adminKey.privateJwk })
  return { verifier, storePath, http, admin, adminKey, startSecond: (more = {}) => start(more) }
}
