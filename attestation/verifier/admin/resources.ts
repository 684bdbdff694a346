/** Administration of resources: contents go in and never come back this way. */
import { UsageError } from '#protocol/errors'
import { MAX_RESOURCE_BYTES, parseResourcePath, type ReleaseTerms } from '../../store/resource-store.ts'
import type { HttpExchange, HttpReply } from '../http-listener.ts'
import { type AdminContext, notFound, queryNumber, queryTime, READERS, WRITERS } from './context.ts'
import { releaseOf } from './release-query.ts'

/** POST /resource/R/T/T?release=attested|images&image=sha256:…&reference=ID&require=CEL&max-holders=N&not-before=TIME&not-after=TIME */
export async function putResource(
  context: AdminContext,
  exchange: HttpExchange,
  name: readonly string[],
): Promise<HttpReply> {
  const admin = await context.authenticate(exchange, WRITERS)
  const path = parseResourcePath(name)
  const terms = termsOf(exchange)
  const content = await exchange.body(MAX_RESOURCE_BYTES)
  const { resources, tenant, now } = context.options
  const quota = { maxResources: tenant.maxResources, maxBytes: tenant.maxResourceBytes }
  const version = await context.change(admin, { action: 'resource.put', subject: path }, (sql) =>
    resources.put(sql, { path, content, terms, at: now(), quota }),
  )
  return { status: 200, body: { path, version } }
}

export async function removeResource(
  context: AdminContext,
  exchange: HttpExchange,
  name: readonly string[],
): Promise<HttpReply> {
  const admin = await context.authenticate(exchange, WRITERS)
  const path = parseResourcePath(name)
  await context.change(admin, { action: 'resource.remove', subject: path }, async (sql) => {
    if (!(await context.options.resources.remove(sql, path)))
      throw notFound('ERR_RESOURCE_NOT_FOUND', `resource ${path}`)
  })
  return { status: 200 }
}

/** POST /resource-rollback/R/T/T: the version before the current one. */
export async function rollBackResource(
  context: AdminContext,
  exchange: HttpExchange,
  name: readonly string[],
): Promise<HttpReply> {
  const admin = await context.authenticate(exchange, WRITERS)
  const path = parseResourcePath(name)
  await context.change(admin, { action: 'resource.roll-back', subject: path }, async (sql) => {
    if (await context.options.resources.rollBack(sql, path)) return
    throw notFound('ERR_RESOURCE_NOT_FOUND', `older version of resource ${path}`)
  })
  return { status: 200 }
}

export async function listResources(context: AdminContext, exchange: HttpExchange): Promise<HttpReply> {
  await context.authenticate(exchange, READERS)
  return { status: 200, body: { resources: await context.options.resources.list() } }
}

function termsOf(exchange: HttpExchange): ReleaseTerms {
  const { query } = exchange
  const maxHolders = query.has('max-holders') ? queryNumber(exchange, 'max-holders') : undefined
  if (maxHolders !== undefined && (maxHolders < 1 || maxHolders > 1_000_000)) {
    throw new UsageError('ERR_QUERY', 'max-holders must be 1 to 1000000')
  }
  const [notBefore, notAfter] = [queryTime(exchange, 'not-before'), queryTime(exchange, 'not-after')]
  return {
    condition: releaseOf(query),
    ...(maxHolders === undefined ? {} : { maxHolders }),
    ...(notBefore === undefined ? {} : { notBefore }),
    ...(notAfter === undefined ? {} : { notAfter }),
  }
}
