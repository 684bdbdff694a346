/** Administration of appraisal policies: documents go in as they were written, and come back so. */
import { UsageError } from '#protocol/errors'
import { parsePolicyId } from '../../store/policy-store.ts'
import type { HttpExchange, HttpReply } from '../http-listener.ts'
import { readPolicy, STRICT_ID } from '../tenant-demands.ts'
import { type AdminContext, notFound, READERS, WRITERS } from './context.ts'

const MAX_POLICY_BYTES = 256 * 1024

/** POST /appraisal-policy/ID with a document of docs/appraisal.md. */
export async function putPolicy(context: AdminContext, exchange: HttpExchange, name: string): Promise<HttpReply> {
  const admin = await context.authenticate(exchange, WRITERS)
  const id = parsePolicyId(name)
  if (id === STRICT_ID) {
    throw new UsageError('ERR_POLICY_ID', `${JSON.stringify(id)} is what counts without any policy`, {
      hint: 'Choose another name.',
    })
  }
  const document = await documentOf(exchange)
  const { policies, now } = context.options
  await context.change(admin, { action: 'appraisal-policy.put', subject: id }, (sql) =>
    policies.put(sql, { id, document }, now()),
  )
  return { status: 200, body: { id } }
}

/** POST /appraisal-policy-check: reads a document and keeps nothing. */
export async function checkPolicy(context: AdminContext, exchange: HttpExchange): Promise<HttpReply> {
  await context.authenticate(exchange, READERS)
  const policy = readPolicy(await documentOf(exchange))
  return { status: 200, body: { conditions: policy.conditions.length, anchors: policy.anchors.length } }
}

export async function removePolicy(context: AdminContext, exchange: HttpExchange, name: string): Promise<HttpReply> {
  const admin = await context.authenticate(exchange, WRITERS)
  const act = { action: 'appraisal-policy.remove', subject: parsePolicyId(name) }
  await context.change(admin, act, async (sql) => {
    if (!(await context.options.policies.remove(sql, name))) throw notFound('ERR_POLICY_NOT_FOUND', `policy ${name}`)
  })
  return { status: 200 }
}

/** GET /appraisal-policies, by name. */
export async function listPolicies(context: AdminContext, exchange: HttpExchange): Promise<HttpReply> {
  await context.authenticate(exchange, READERS)
  return { status: 200, body: { 'appraisal-policies': await context.options.policies.list() } }
}

/** @throws MalformedError ERR_POLICY_MALFORMED, ERR_CONDITION */
async function documentOf(exchange: HttpExchange): Promise<string> {
  const document = Buffer.from(await exchange.body(MAX_POLICY_BYTES)).toString('utf8')
  readPolicy(document)
  return document
}
