/** What every administrative call needs: who asks, for which tenant, and the record of what was done. */
import { UsageError } from '#protocol/errors'
import type { AttestationLog } from '../../store/attestation-log.ts'
import type { AuditLog } from '../../store/audit-log.ts'
import type { Database, Sql } from '../../store/database.ts'
import type { IdentityStore } from '../../store/identity-store.ts'
import type { PolicyStore } from '../../store/policy-store.ts'
import type { ReferenceStore } from '../../store/reference-store.ts'
import type { ResourceStore } from '../../store/resource-store.ts'
import type { Role, Tenant } from '../../store/tenant-store.ts'
import type { HttpExchange } from '../http-listener.ts'
import type { AdminAuthenticator, Administrator } from './authenticator.ts'

export const READERS: readonly Role[] = ['owner', 'operator', 'auditor']
export const WRITERS: readonly Role[] = ['owner', 'operator']
export const OWNERS: readonly Role[] = ['owner']

const DEFAULT_LIST = 50
const MAX_LIST = 500

export interface AdminOptions {
  readonly database: Database
  readonly authenticator: AdminAuthenticator
  readonly tenant: Tenant
  readonly resources: ResourceStore
  readonly references: ReferenceStore
  readonly policies: PolicyStore
  readonly identities: IdentityStore
  readonly log: AttestationLog
  readonly audit: AuditLog
  /** Throws `MalformedError` unless the text is a document of reference values that some kind of evidence understands. */
  readonly parseReference: (document: string) => { readonly id: string }
  readonly now: () => Date
}

export class AdminContext {
  readonly options: AdminOptions

  constructor(options: AdminOptions) {
    this.options = options
  }

  /** @throws UnverifiedError ERR_ADMIN_AUTH, DeniedError ERR_ADMIN_ROLE */
  async authenticate(exchange: HttpExchange, needs: readonly Role[]): Promise<Administrator> {
    const { authenticator, tenant } = this.options
    return await authenticator.authenticate(exchange.headers.authorization, { admins: tenant.admins, needs })
  }

  /** Does `work` and puts it on record, both or neither. */
  async change<T>(
    admin: Administrator,
    act: { readonly action: string; readonly subject: string },
    work: (sql: Sql) => Promise<T>,
  ): Promise<T> {
    const { database, audit, now } = this.options
    return await database.transaction(async (sql) => {
      const result = await work(sql)
      await audit.add(sql, { at: now(), actor: `admin ${admin.id}`, ...act, verdict: 'accepted' })
      return result
    })
  }
}

export function listLimit(exchange: HttpExchange): number {
  const text = exchange.query.get('limit') ?? String(DEFAULT_LIST)
  const limit = /^\d{1,6}$/.test(text) ? Number(text) : 0
  if (limit < 1) throw new UsageError('ERR_QUERY', `limit ${JSON.stringify(text)} is not a positive whole number`)
  return Math.min(limit, MAX_LIST)
}

export function queryNumber(exchange: HttpExchange, name: string): number {
  const text = exchange.query.get(name) ?? ''
  if (/^\d{1,15}$/.test(text)) return Number(text)
  throw new UsageError('ERR_QUERY', `${name} ${JSON.stringify(text.slice(0, 32))} is not a whole number`)
}

/** RFC 3339; undefined when it is not given. */
export function queryTime(exchange: HttpExchange, name: string): Date | undefined {
  const text = exchange.query.get(name)
  if (text === null) return undefined
  const time = /^\d{4}-\d{2}-\d{2}T[0-9:.]{5,15}Z$/.test(text) ? new Date(text) : new Date(Number.NaN)
  if (Number.isFinite(time.getTime())) return time
  throw new UsageError(
    'ERR_QUERY',
    `${name} ${JSON.stringify(text.slice(0, 40))} is not a time such as 2026-01-31T12:00:00Z`,
  )
}

export function notFound(code: string, what: string): UsageError {
  return new UsageError(code, `there is no ${what}`)
}
