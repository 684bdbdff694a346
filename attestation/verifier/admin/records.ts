/** What happened: attestation records for explanations, and the audit log with its proofs. */
import { UsageError } from '#protocol/errors'
import { reasonId } from '../guest-reasons.ts'
import type { HttpExchange, HttpReply } from '../http-listener.ts'
import { type AdminContext, listLimit, notFound, queryNumber, READERS } from './context.ts'

/** GET /attestations?limit=N&verdict=accepted|refused, newest first. */
export async function listAttestations(context: AdminContext, exchange: HttpExchange): Promise<HttpReply> {
  await context.authenticate(exchange, READERS)
  const verdict = exchange.query.get('verdict')
  if (verdict !== null && verdict !== 'accepted' && verdict !== 'refused') {
    throw new UsageError('ERR_QUERY', `verdict ${JSON.stringify(verdict)} is neither "accepted" nor "refused"`)
  }
  const limit = listLimit(exchange)
  const records = await context.options.log.list(verdict === null ? { limit } : { limit, verdict })
  return { status: 200, body: { attestations: records } }
}

/** GET /attestations/ID: the record, then others of its handshake. */
export async function explainAttestation(
  context: AdminContext,
  exchange: HttpExchange,
  id: string,
): Promise<HttpReply> {
  await context.authenticate(exchange, READERS)
  const { log, tenant } = context.options
  const wanted = id.slice(0, 64)
  const key = reasonId(tenant.name, wanted)
  const told = await log.find(key)
  const others = await log.handshakeOf(told === undefined ? wanted : key)
  // What the guest told comes first, and what else the same guest told is another question.
  const records =
    told === undefined ? others : [told, ...others.filter(({ stage }) => stage !== 'guest' && stage !== 'reason')]
  if (records.length === 0) {
    throw notFound('ERR_ATTESTATION_NOT_FOUND', `attestation ${JSON.stringify(id.slice(0, 64))}`)
  }
  return { status: 200, body: { attestations: records } }
}

/** GET /audit?limit=N, newest first. */
export async function listAudit(context: AdminContext, exchange: HttpExchange): Promise<HttpReply> {
  await context.authenticate(exchange, READERS)
  return { status: 200, body: { audit: await context.options.audit.list(listLimit(exchange)) } }
}

/** GET /audit/tree, /audit/leaves?from=N&limit=N, /audit/consistency?older=N&newer=N, /audit/inclusion?index=N&size=N. */
export async function checkAudit(context: AdminContext, exchange: HttpExchange, what: string): Promise<HttpReply> {
  await context.authenticate(exchange, READERS)
  const { audit } = context.options
  const number = (name: string): number => queryNumber(exchange, name)
  switch (what) {
    case 'tree':
      return { status: 200, body: await audit.tree() }
    case 'leaves':
      return { status: 200, body: { leaves: await audit.leaves(number('from'), listLimit(exchange)) } }
    case 'consistency':
      return { status: 200, body: { proof: await audit.proveConsistency(number('older'), number('newer')) } }
    case 'inclusion':
      return { status: 200, body: { proof: await audit.proveInclusion(number('index'), number('size')) } }
    default:
      throw notFound('ERR_NO_SUCH_PATH', `view ${JSON.stringify(what.slice(0, 64))} of the audit log`)
  }
}
