/** The services of a tenant on a store in memory, with evidence that needs no TPM and a clock that the test turns. */
import type { ExecutionContext } from 'ava'
import type { AttestationLog } from '#attestation/store/attestation-log'
import type { AuditLog } from '#attestation/store/audit-log'
import type { Database } from '#attestation/store/database'
import type { IdentityStore } from '#attestation/store/identity-store'
import { LocalKeyWrapper } from '#attestation/store/key-wrapper'
import type { ReferenceStore } from '#attestation/store/reference-store'
import type { ReleaseTerms, ResourceStore } from '#attestation/store/resource-store'
import { Sealing } from '#attestation/store/sealing'
import { IN_MEMORY, SqliteDatabase } from '#attestation/store/sqlite'
import { TenantStore } from '#attestation/store/tenant-store'
import { tpmTrustVector } from '#attestation/token/trust-vector'
import { AdminAuthenticator } from '#attestation/verifier/admin/authenticator'
import type { Appraisal, EvidenceKind } from '#attestation/verifier/evidence'
import type { IdentityCa } from '#attestation/verifier/identity-ca'
import type { IdentityIssue } from '#attestation/verifier/identity-issue'
import type { KbsService } from '#attestation/verifier/kbs-service'
import type { ResourceRelease } from '#attestation/verifier/resource-release'
import { TenantDirectory } from '#attestation/verifier/tenant-directory'
import type { TokenIssuer } from '#attestation/verifier/token-issuer'

export const MINUTE: number = 60_000
export const MANIFEST: string = `sha256:${'a'.repeat(64)}`
export const QUOTA = { maxResources: 1000, maxBytes: 10_000_000 } as const

/** Evidence that says in plain words what the verdict shall be; the service is what is tested here. */
const spoken: EvidenceKind = {
  tee: 'sample',
  challenge: () => ({ state: { secret: 's' } }),
  appraise: ({ state, nonce, attestation }): Appraisal => {
    const said = attestation.primaryEvidence
    const common = { checks: [], facts: { secret: JSON.stringify(state.secret) } }
    if (said === 'bad') {
      const checks = [{ claim: 'word', expected: 'good', found: 'bad', ok: false, remedy: 'say good' }]
      return { ...common, checks, accepted: false, code: 'ERR_TEST_REFUSED', reason: 'it said bad', hint: undefined }
    }
    return {
      ...common,
      accepted: true,
      vector: said === 'weak' ? { ...tpmTrustVector(false), executables: 33 } : tpmTrustVector(said === 'images'),
      referenceId: 'guest-1',
      policyId: 'strict',
      reportData: Buffer.from(nonce).toString('hex'),
      initdataDigest: '00',
      teeClaims: {},
      images: said === 'images' ? [{ container: 'web', manifest: MANIFEST, config: MANIFEST, diffIds: [] }] : [],
    }
  },
}

export interface ServedTenant {
  readonly database: Database
  readonly directory: TenantDirectory
  readonly tenants: TenantStore
  readonly references: ReferenceStore
  readonly tokens: TokenIssuer
  readonly kbs: KbsService
  readonly release: ResourceRelease
  readonly identity: IdentityIssue
  readonly identityCa: IdentityCa
  readonly identities: IdentityStore
  readonly log: AttestationLog
  readonly audit: AuditLog
  readonly resources: ResourceStore
  readonly clock: { now: number }
  /** Stores a resource of the default tenant. */
  readonly store: (path: string, content: string, terms?: ReleaseTerms) => Promise<number>
}

/** @param kinds of evidence; default: what says in plain words what the verdict shall be */
export async function serveTenant(
  t: ExecutionContext,
  kinds: readonly EvidenceKind[] = [spoken],
): Promise<ServedTenant> {
  const clock = { now: Date.UTC(2026, 0, 1) }
  const now = () => new Date(clock.now)
  const database = await SqliteDatabase.open(IN_MEMORY)
  t.teardown(() => database[Symbol.asyncDispose]())
  const sealing = await Sealing.open(database, new LocalKeyWrapper(new Uint8Array(32)), now())
  const tenants = new TenantStore(database)
  const directory = new TenantDirectory({
    database,
    sealing,
    tenants,
    authenticator: new AdminAuthenticator({ keys: [], now }),
    kinds,
    parseReference: () => ({ id: 'x' }),
    issuer: 'test',
    identityLifetimeMs: 3_600_000,
    sessionLifetimeMs: 5 * MINUTE,
    tokenLifetimeMs: 5 * MINUTE,
    keyRotationMs: 60 * MINUTE,
    keepAttestations: 1000,
    now,
  })
  const { kbs, release, identity, identityCa, tokens, admin } = await directory.find()
  const { log, audit, resources, references, identities } = admin.options
  const store = (path: string, content: string, terms: ReleaseTerms = { condition: { kind: 'attested' } }) =>
    database.transaction((sql) =>
      resources.put(sql, { path, content: Buffer.from(content), terms, at: now(), quota: QUOTA }),
    )
  await store('default/tls/key', 'tls key')
  await store('default/tls/late', 'late', { condition: { kind: 'images', manifests: [MANIFEST] } })
  const guests = { kbs, release, identity, identityCa, identities, tokens }
  return { database, directory, tenants, references, ...guests, log, audit, resources, clock, store }
}
