/** Administration of tenants, by the service's own administrators; a tenant's owners see and change its administrators. */
import { UsageError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import { DEFAULT_TENANT } from '../../store/database.ts'
import {
  parseTenantName,
  ROLES,
  type Tenant,
  type TenantAdmin,
  type TenantSettings,
  type TenantStore,
} from '../../store/tenant-store.ts'
import type { HttpExchange, HttpReply } from '../http-listener.ts'
import { adminKeyId, publicPart } from './authenticator.ts'
import { type AdminContext, notFound } from './context.ts'

const MAX_BODY = 256 * 1024
const MAX_ADMINS = 64
const CODE = 'ERR_TENANT_SETTINGS'
const LARGEST: Readonly<Record<Exclude<keyof TenantSettings, 'admins'>, number>> = {
  maxResources: 1_000_000,
  maxResourceBytes: 2 ** 40,
  keepAttestations: 10_000_000,
  requestsPerMinute: 10_000_000,
}

/** POST /tenant/NAME with settings; creates a tenant or changes those settings that are given. */
export async function putTenant(
  context: AdminContext,
  store: TenantStore,
  exchange: HttpExchange,
  name: string,
): Promise<HttpReply> {
  const admin = await context.authenticate(exchange, [])
  const tenant = parseTenantName(name)
  const settings = parseTenantSettings(Buffer.from(await exchange.body(MAX_BODY)).toString('utf8'))
  await context.change(admin, { action: 'tenant.put', subject: tenant }, (sql) =>
    store.put(sql, tenant, settings, context.options.now()),
  )
  return { status: 200, body: { name: tenant } }
}

/** DELETE /tenant/NAME with everything it has. */
export async function removeTenant(
  context: AdminContext,
  store: TenantStore,
  exchange: HttpExchange,
  name: string,
): Promise<HttpReply> {
  const admin = await context.authenticate(exchange, [])
  if (name === DEFAULT_TENANT) {
    throw new UsageError(
      'ERR_TENANT_NAME',
      'the default tenant cannot be removed: its audit log records what happens to tenants',
    )
  }
  await context.change(admin, { action: 'tenant.remove', subject: parseTenantName(name) }, async (sql) => {
    if (!(await store.remove(sql, name))) throw notFound('ERR_TENANT_NOT_FOUND', `tenant ${name}`)
  })
  return { status: 200 }
}

export async function listTenants(
  context: AdminContext,
  store: TenantStore,
  exchange: HttpExchange,
): Promise<HttpReply> {
  await context.authenticate(exchange, [])
  return { status: 200, body: { tenants: (await store.list()).map(tenantJson) } }
}

function tenantJson({ admins, ...tenant }: Tenant): object {
  return { ...tenant, admins: admins.map(({ key, role }) => ({ id: adminKeyId(key), role })) }
}

/** Strict; what is absent stays as it is. Throws `MalformedError` ERR_TENANT_SETTINGS or ERR_ADMIN_KEY. */
export function parseTenantSettings(text: string): Partial<TenantSettings> {
  const fields = JsonFields.parse(text, 'tenant', { code: CODE, maxChars: MAX_BODY })
  fields.only(['admins', ...Object.keys(LARGEST)])
  const numbers = Object.entries(LARGEST).filter(([name]) => fields.has(name))
  return {
    ...(fields.has('admins') ? { admins: fields.objects('admins', MAX_ADMINS).map(parseAdmin) } : {}),
    ...Object.fromEntries(numbers.map(([name, max]) => [name, fields.integer(name, 1, max)])),
  }
}

function parseAdmin(fields: JsonFields): TenantAdmin {
  fields.only(['key', 'role'])
  const key = fields.object('key')
  const jwk = { kty: key.string('kty', 8), crv: key.string('crv', 16), x: key.string('x', 64) }
  return { key: publicPart(jwk), role: fields.oneOf('role', ROLES) }
}
