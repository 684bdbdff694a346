/** Administration of collateral, by the service's own administrators: it is the same for all tenants. */
import type { AnswerStore } from '../../collateral/answer-store.ts'
import { encodeBundle, MAX_BUNDLE_BYTES, parseBundle } from '../../collateral/bundle.ts'
import type { CollateralService } from '../../collateral/collateral-service.ts'
import type { HttpExchange, HttpReply } from '../http-listener.ts'
import type { AdminContext } from './context.ts'

export interface CollateralAdmin {
  readonly store: AnswerStore
  readonly service: CollateralService
}

/** GET /collateral: what is kept, without contents. */
export async function listCollateral(
  context: AdminContext,
  { store }: CollateralAdmin,
  exchange: HttpExchange,
): Promise<HttpReply> {
  await context.authenticate(exchange, [])
  const answers = await store.list()
  return { status: 200, body: { collateral: answers.map(({ files: _files, ...answer }) => answer) } }
}

/** GET /collateral/bundle?after=URL: those behind that address, as many as one bundle takes; none behind the last. */
export async function exportCollateral(
  context: AdminContext,
  { store }: CollateralAdmin,
  exchange: HttpExchange,
): Promise<HttpReply> {
  await context.authenticate(exchange, [])
  const bundle = await encodeBundle(store.behind(exchange.query.get('after') ?? ''))
  return { status: 200, body: Buffer.from(bundle) }
}

/** POST /collateral with such a bundle; each answer is checked as if it had been fetched. All of them or none. */
export async function importCollateral(
  context: AdminContext,
  { service }: CollateralAdmin,
  exchange: HttpExchange,
): Promise<HttpReply> {
  const admin = await context.authenticate(exchange, [])
  const answers = parseBundle(Buffer.from(await exchange.body(MAX_BUNDLE_BYTES)).toString('utf8'))
  const prepared = await service.prepare(answers)
  const act = { action: 'collateral.import', subject: `${answers.length} answers` }
  await context.change(admin, act, (sql) => prepared.write(sql))
  prepared.remember()
  return { status: 200, body: { imported: answers.length } }
}
