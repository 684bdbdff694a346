/** A KBS service on a store in memory, with evidence that needs no TPM and a clock that the test turns. */
import type { ExecutionContext } from 'ava'
import { tpmTrustVector } from '#attestation/token/trust-vector'
import { AttestationLog } from '#attestation/verifier/attestation-log'
import { AuditLog } from '#attestation/verifier/audit-log'
import { Database, IN_MEMORY } from '#attestation/verifier/database'
import type { Appraisal, EvidenceKind } from '#attestation/verifier/evidence'
import { KbsService } from '#attestation/verifier/kbs-service'
import { ReferenceStore } from '#attestation/verifier/reference-store'
import { ResourceStore } from '#attestation/verifier/resource-store'
import { SessionSealer } from '#attestation/verifier/session-seal'
import { SpentChallenges } from '#attestation/verifier/spent-challenges'
import { TokenIssuer } from '#attestation/verifier/token-issuer'

export const MINUTE: number = 60_000
export const MANIFEST: string = `sha256:${'a'.repeat(64)}`

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
      reportData: Buffer.from(nonce).toString('hex'),
      initdataDigest: '00',
      teeClaims: {},
      images: said === 'images' ? [{ container: 'web', manifest: MANIFEST, config: MANIFEST, diffIds: [] }] : [],
    }
  },
}

export interface Bench {
  readonly database: Database
  readonly references: ReferenceStore
  readonly tokens: TokenIssuer
  readonly kbs: KbsService
  readonly log: AttestationLog
  readonly audit: AuditLog
  readonly resources: ResourceStore
  readonly clock: { now: number }
}

export function bench(t: ExecutionContext): Bench {
  const clock = { now: Date.UTC(2026, 0, 1) }
  const now = () => new Date(clock.now)
  const database = Database.open(IN_MEMORY)
  t.teardown(() => database[Symbol.dispose]())
  const lifetimes = { sessionLifetimeMs: 5 * MINUTE, tokenLifetimeMs: 5 * MINUTE }
  const log = new AttestationLog(database, { keep: 1000 })
  const audit = new AuditLog(database)
  const resources = new ResourceStore(database)
  resources.put('default/tls/key', Buffer.from('tls key'), { kind: 'attested' }, now())
  resources.put('default/tls/late', Buffer.from('late'), { kind: 'images', manifests: [MANIFEST] }, now())
  const references = new ReferenceStore(database)
  const tokens = new TokenIssuer({ database, rotateAfterMs: 60 * MINUTE, tokenLifetimeMs: 5 * MINUTE, now })
  const kbs = new KbsService({
    database,
    sealer: new SessionSealer({ database, rotateAfterMs: 60 * MINUTE, sessionLifetimeMs: 5 * MINUTE, now }),
    tokens,
    spent: new SpentChallenges(database),
    log,
    audit,
    references,
    resources,
    kinds: [spoken],
    issuer: 'test',
    ...lifetimes,
    now,
  })
  return { database, references, kbs, tokens, log, audit, resources, clock }
}
