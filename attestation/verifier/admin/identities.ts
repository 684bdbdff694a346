/** Administration of the names that guests may have in certificates. */
import { parseIdentityGrant } from '../../store/identity-store.ts'
import { parsePolicyId } from '../../store/policy-store.ts'
import type { HttpExchange, HttpReply } from '../http-listener.ts'
import { type AdminContext, notFound, READERS, WRITERS } from './context.ts'
import { releaseOf } from './release-query.ts'

/** POST /identity-grant/ID?name=NAME…&release=attested|images&image=DIGEST…&reference=ID…&require=CEL */
export async function putIdentity(context: AdminContext, exchange: HttpExchange, id: string): Promise<HttpReply> {
  const admin = await context.authenticate(exchange, WRITERS)
  const { query } = exchange
  const grant = parseIdentityGrant(id, query.getAll('name'), releaseOf(query))
  const { identities, now } = context.options
  const act = { action: 'identity.put', subject: `${grant.id}: ${grant.names.join(' ')}` }
  await context.change(admin, act, (sql) => identities.put(sql, grant, now()))
  return { status: 200, body: { id } }
}

export async function removeIdentity(context: AdminContext, exchange: HttpExchange, id: string): Promise<HttpReply> {
  const admin = await context.authenticate(exchange, WRITERS)
  const act = { action: 'identity.remove', subject: parsePolicyId(id) }
  await context.change(admin, act, async (sql) => {
    if (!(await context.options.identities.remove(sql, id))) throw notFound('ERR_IDENTITY_NOT_FOUND', `grant ${id}`)
  })
  return { status: 200 }
}

/** GET /identity-grants, by id. */
export async function listIdentities(context: AdminContext, exchange: HttpExchange): Promise<HttpReply> {
  await context.authenticate(exchange, READERS)
  return { status: 200, body: { 'identity-grants': await context.options.identities.list() } }
}
