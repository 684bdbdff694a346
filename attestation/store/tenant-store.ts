/** Tenants: whose resources, reference values, keys and logs a store keeps, apart from each other. */
import type { JWK } from 'jose'
import { MalformedError, UsageError } from '#protocol/errors'
import { type Database, DEFAULT_TENANT, type Sql } from './database.ts'
import { integer, type Row, text } from './row.ts'

/** `owner`: everything of the tenant. `operator`: resources and reference values. `auditor`: reads, changes nothing. */
export const ROLES = ['owner', 'operator', 'auditor'] as const
export type Role = (typeof ROLES)[number]

export interface TenantAdmin {
  /** Public Ed25519 key. */
  readonly key: JWK
  readonly role: Role
}

export interface TenantSettings {
  readonly admins: readonly TenantAdmin[]
  readonly maxResources: number
  readonly maxResourceBytes: number
  /** Attestation records kept. */
  readonly keepAttestations: number
  /** Of guests, together, per minute; more are told to come back. */
  readonly requestsPerMinute: number
}

export interface Tenant extends TenantSettings {
  readonly name: string
  readonly createdAt: Date
}

export const DEFAULT_SETTINGS: TenantSettings = {
  admins: [],
  maxResources: 10_000,
  maxResourceBytes: 1024 * 1024 * 1024,
  keepAttestations: 10_000,
  requestsPerMinute: 60_000,
}

const MAX_TENANTS = 10_000
const NAME = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/

/** @throws MalformedError ERR_TENANT_NAME */
export function parseTenantName(name: string): string {
  if (NAME.test(name)) return name
  throw new MalformedError('ERR_TENANT_NAME', `${JSON.stringify(name.slice(0, 80))} is not the name of a tenant`, {
    hint: 'Use a DNS label: lower-case letters, digits and dashes.',
  })
}

export class TenantStore {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  /** The default tenant is there without having been made. */
  async find(name: string): Promise<Tenant | undefined> {
    const row = await this.#database.get('SELECT * FROM tenants WHERE name = ?', name)
    if (row !== undefined) return toTenant(row)
    return name === DEFAULT_TENANT ? { name, createdAt: new Date(0), ...DEFAULT_SETTINGS } : undefined
  }

  async list(): Promise<readonly Tenant[]> {
    return (await this.#database.all('SELECT * FROM tenants ORDER BY name')).map(toTenant)
  }

  /** Creates or changes; settings that are not given stay, or are the default ones. @throws UsageError ERR_TENANT_LIMIT */
  async put(sql: Sql, name: string, settings: Partial<TenantSettings>, at: Date): Promise<void> {
    const others = integer(await sql.get('SELECT count(*) AS n FROM tenants WHERE name <> ?', name), 'n')
    if (others >= MAX_TENANTS) throw new UsageError('ERR_TENANT_LIMIT', `there are ${others} tenants already`)
    const row = await sql.get('SELECT settings FROM tenants WHERE name = ?', name)
    const before = row === undefined ? DEFAULT_SETTINGS : settingsOf(row)
    await sql.run(
      `INSERT INTO tenants (name, created_ms, settings) VALUES (?, ?, ?)
       ON CONFLICT (name) DO UPDATE SET settings = excluded.settings`,
      name,
      at.getTime(),
      JSON.stringify({ ...before, ...settings }),
    )
  }

  /** With everything it has, its audit log included. False when there is no such tenant. */
  async remove(sql: Sql, name: string): Promise<boolean> {
    for (const table of [
      'signing_keys',
      'attestation_records',
      'resource_holders',
      'resource_versions',
      'reference_documents',
      'appraisal_policies',
      'identity_grants',
      'tenant_audit_leaves',
      'tenant_audit_nodes',
    ]) {
      await sql.run(`DELETE FROM ${table} WHERE tenant = ?`, name)
    }
    return (await sql.run('DELETE FROM tenants WHERE name = ?', name)) > 0
  }
}

function toTenant(row: Row): Tenant {
  return { name: text(row, 'name'), createdAt: new Date(integer(row, 'created_ms')), ...settingsOf(row) }
}

/** Those that an older release did not know have their defaults. */
function settingsOf(row: Row): TenantSettings {
  const settings: Partial<TenantSettings> = JSON.parse(text(row, 'settings'))
  return { ...DEFAULT_SETTINGS, ...settings }
}
