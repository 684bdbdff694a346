/** Administration of reference values: register, promote, retire with an overlap, remove. */
import { UsageError } from '#protocol/errors'
import { parseReferenceId, type StoredReference } from '../../store/reference-store.ts'
import type { HttpExchange, HttpReply } from '../http-listener.ts'
import { type AdminContext, notFound, queryTime, READERS, WRITERS } from './context.ts'

const MAX_REFERENCE_BYTES = 1024 * 1024

/** POST /reference-value?state=active|candidate with a document as `caisson measure` prints it. */
export async function putReference(context: AdminContext, exchange: HttpExchange): Promise<HttpReply> {
  const admin = await context.authenticate(exchange, WRITERS)
  const state = exchange.query.get('state') ?? 'active'
  if (state !== 'active' && state !== 'candidate') {
    throw new UsageError('ERR_QUERY', `state ${JSON.stringify(state.slice(0, 32))} is neither "active" nor "candidate"`)
  }
  const document = Buffer.from(await exchange.body(MAX_REFERENCE_BYTES)).toString('utf8')
  const { references, parseReference, now } = context.options
  const id = parseReferenceId(parseReference(document).id)
  await context.change(admin, { action: 'reference-value.put', subject: id }, (sql) =>
    references.put(sql, { id, document, state }, now()),
  )
  return { status: 200, body: { id, state } }
}

/** POST /reference-value-promote/ID */
export async function promoteReference(context: AdminContext, exchange: HttpExchange, id: string): Promise<HttpReply> {
  const admin = await context.authenticate(exchange, WRITERS)
  const act = { action: 'reference-value.promote', subject: parseReferenceId(id) }
  await context.change(admin, act, async (sql) => {
    if (!(await context.options.references.promote(sql, id))) throw unknownReference(id)
  })
  return { status: 200 }
}

/** POST /reference-value-retire/ID?until=TIME; without a time it stops counting now. */
export async function retireReference(context: AdminContext, exchange: HttpExchange, id: string): Promise<HttpReply> {
  const admin = await context.authenticate(exchange, WRITERS)
  const until = queryTime(exchange, 'until') ?? context.options.now()
  const act = { action: 'reference-value.retire', subject: parseReferenceId(id) }
  await context.change(admin, act, async (sql) => {
    if (!(await context.options.references.retire(sql, id, until))) throw unknownReference(id)
  })
  return { status: 200 }
}

export async function removeReference(context: AdminContext, exchange: HttpExchange, id: string): Promise<HttpReply> {
  const admin = await context.authenticate(exchange, WRITERS)
  const act = { action: 'reference-value.remove', subject: parseReferenceId(id) }
  await context.change(admin, act, async (sql) => {
    if (!(await context.options.references.remove(sql, id))) throw unknownReference(id)
  })
  return { status: 200 }
}

export async function getReference(context: AdminContext, exchange: HttpExchange, id: string): Promise<HttpReply> {
  await context.authenticate(exchange, READERS)
  const reference = await context.options.references.find(parseReferenceId(id))
  if (reference === undefined) throw unknownReference(id)
  return { status: 200, body: referenceJson(reference) }
}

export async function listReferences(context: AdminContext, exchange: HttpExchange): Promise<HttpReply> {
  await context.authenticate(exchange, READERS)
  const references = await context.options.references.list()
  return { status: 200, body: { 'reference-values': references.map(referenceJson) } }
}

function referenceJson({ document, ...reference }: StoredReference): object {
  return { ...reference, document: JSON.parse(document) }
}

function unknownReference(id: string): UsageError {
  return notFound('ERR_REFERENCE_NOT_FOUND', `reference value ${id}`)
}
