/**
 * The services of each tenant: its own keys, stores and logs over one database. Nothing that belongs to one tenant is
 * reachable from another's services, because every one of them is made for a tenant's name and asks for nothing else.
 */
import { UsageError } from '#protocol/errors'
import { AttestationLog } from '../store/attestation-log.ts'
import { AuditLog } from '../store/audit-log.ts'
import { type Database, DEFAULT_TENANT } from '../store/database.ts'
import { IdentityStore } from '../store/identity-store.ts'
import { PolicyStore } from '../store/policy-store.ts'
import { ReferenceStore } from '../store/reference-store.ts'
import { ResourceStore } from '../store/resource-store.ts'
import type { Sealing } from '../store/sealing.ts'
import { SpentChallenges } from '../store/spent-challenges.ts'
import { parseTenantName, type Tenant, type TenantStore } from '../store/tenant-store.ts'
import type { AdminAuthenticator } from './admin/authenticator.ts'
import { AdminContext } from './admin/context.ts'
import type { EvidenceKind } from './evidence.ts'
import { GuestClaims } from './guest-claims.ts'
import { GuestReasons } from './guest-reasons.ts'
import { IdentityCa } from './identity-ca.ts'
import { IdentityIssue } from './identity-issue.ts'
import { KbsService } from './kbs-service.ts'
import { RateLimit } from './rate-limit.ts'
import { ResourceRelease } from './resource-release.ts'
import { SessionSealer } from './session-seal.ts'
import { TokenIssuer } from './token-issuer.ts'

export interface TenantServices {
  readonly tenant: Tenant
  /** `iss` of this tenant's tokens. */
  readonly issuer: string
  readonly kbs: KbsService
  readonly release: ResourceRelease
  readonly identity: IdentityIssue
  readonly identityCa: IdentityCa
  readonly reasons: GuestReasons
  readonly admin: AdminContext
  readonly tokens: TokenIssuer
  readonly rate: RateLimit
}

export interface DirectoryOptions {
  readonly database: Database
  readonly sealing: Sealing
  readonly tenants: TenantStore
  readonly authenticator: AdminAuthenticator
  readonly kinds: readonly EvidenceKind[]
  readonly parseReference: (document: string) => { readonly id: string }
  readonly issuer: string
  readonly tokenLifetimeMs: number
  readonly sessionLifetimeMs: number
  readonly identityLifetimeMs: number
  readonly keyRotationMs: number
  readonly keepAttestations: number | undefined
  readonly now: () => Date
}

/** How long changed settings, or a removed tenant, may go unnoticed by another process. */
const SETTINGS_MS = 2_000
/** Tenants whose services are kept ready. */
const MAX_KEPT = 1_000

export class TenantDirectory {
  readonly #options: DirectoryOptions
  readonly #kept = new Map<string, { readonly services: TenantServices; readonly atMs: number }>()

  constructor(options: DirectoryOptions) {
    this.#options = options
  }

  /** @throws MalformedError ERR_TENANT_NAME, UsageError ERR_TENANT_NOT_FOUND */
  async find(name: string = DEFAULT_TENANT): Promise<TenantServices> {
    const nowMs = this.#options.now().getTime()
    const kept = this.#kept.get(name)
    if (kept !== undefined && nowMs >= kept.atMs && nowMs - kept.atMs < SETTINGS_MS) return kept.services
    const tenant = await this.#options.tenants.find(parseTenantName(name))
    if (tenant === undefined) {
      this.#kept.delete(name)
      throw new UsageError('ERR_TENANT_NOT_FOUND', `there is no tenant ${name}`)
    }
    const services = this.#build(tenant, kept?.services)
    if (this.#kept.size >= MAX_KEPT) this.#kept.clear()
    this.#kept.set(name, { services, atMs: nowMs })
    return services
  }

  /** After a change made by this process. */
  forget(name: string): void {
    this.#kept.delete(name)
  }

  /** @param before the tenant's services with older settings: keys in memory and the rate go on */
  #build(tenant: Tenant, before: TenantServices | undefined): TenantServices {
    const { database, sealing, kinds, authenticator, parseReference, now } = this.#options
    const { tokenLifetimeMs, sessionLifetimeMs, keyRotationMs, keepAttestations } = this.#options
    const { name } = tenant
    const issuer = name === DEFAULT_TENANT ? this.#options.issuer : `${this.#options.issuer}/t/${name}`
    const place = { database, sealing, tenant: name, rotateAfterMs: keyRotationMs, now }
    const tokens = before?.tokens ?? new TokenIssuer({ ...place, tokenLifetimeMs })
    const sealer = new SessionSealer({ ...place, sessionLifetimeMs: Math.max(sessionLifetimeMs, tokenLifetimeMs) })
    const log = new AttestationLog(database, { tenant: name, keep: keepAttestations ?? tenant.keepAttestations })
    const audit = new AuditLog(database, name)
    const references = new ReferenceStore(database, name)
    const policies = new PolicyStore(database, name)
    const resources = new ResourceStore({ database, sealing, tenant: name })
    const identities = new IdentityStore(database, name)
    const { identityLifetimeMs: lifetimeMs } = this.#options
    const identityCa = before?.identityCa ?? new IdentityCa({ ...place, lifetimeMs })
    const shared = { database, sealer, tokens, log, audit, issuer, now }
    const guests = new GuestClaims(shared)
    return {
      tenant,
      issuer,
      tokens,
      kbs: new KbsService({
        ...shared,
        tenant: name,
        spent: new SpentChallenges(database),
        references,
        policies,
        operator: name === DEFAULT_TENANT,
        kinds,
        sessionLifetimeMs,
        tokenLifetimeMs,
      }),
      release: new ResourceRelease({ ...shared, guests, resources }),
      identity: new IdentityIssue({ ...shared, guests, identities, ca: identityCa }),
      identityCa,
      reasons: new GuestReasons({ database, guests, log, tenant: name, now }),
      admin: new AdminContext({
        database,
        authenticator,
        tenant,
        resources,
        references,
        policies,
        identities,
        log,
        audit,
        parseReference,
        now,
      }),
      rate: before?.rate.withLimit(tenant.requestsPerMinute) ?? new RateLimit(tenant.requestsPerMinute, now),
    }
  }
}
