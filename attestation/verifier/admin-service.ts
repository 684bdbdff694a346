/**
 * The administrator's half of the API: resources, reference values, attestation records, audit log. Every call is
 * authenticated before its body is read, and every change is in the audit log in the same transaction.
 */
import { UsageError } from '#protocol/errors'
import type { AdminAuthenticator } from './admin-auth.ts'
import type { AttestationLog } from './attestation-log.ts'
import type { AuditLog } from './audit-log.ts'
import type { Database } from './database.ts'
import type { HttpExchange, HttpReply } from './http-listener.ts'
import { parseReferenceId, type ReferenceStore, type StoredReference } from './reference-store.ts'
import { parseReleaseCondition } from './release.ts'
import { MAX_RESOURCE_BYTES, parseResourcePath, type ResourceStore } from './resource-store.ts'

export interface AdminServiceOptions {
  readonly database: Database
  readonly authenticator: AdminAuthenticator
  readonly resources: ResourceStore
  readonly references: ReferenceStore
  readonly log: AttestationLog
  readonly audit: AuditLog
  /** Throws `MalformedError` unless the text is a document of reference values that some kind of evidence understands. */
  readonly parseReference: (document: string) => { readonly id: string }
  readonly now: () => Date
}

const MAX_REFERENCE_BYTES = 1024 * 1024
const DEFAULT_LIST = 50
const MAX_LIST = 500

export class AdminService {
  readonly #options: AdminServiceOptions

  constructor(options: AdminServiceOptions) {
    this.#options = options
  }

  /** POST /resource/repository/type/tag?release=attested|images&image=sha256:… with the content as body. */
  async putResource(exchange: HttpExchange, name: readonly string[]): Promise<HttpReply> {
    const admin = await this.#authenticate(exchange)
    const path = parseResourcePath(name)
    const release = parseReleaseCondition(exchange.query.get('release') ?? 'attested', exchange.query.getAll('image'))
    const content = await exchange.body(MAX_RESOURCE_BYTES)
    const { resources, now } = this.#options
    this.#change(admin, 'resource.put', path, () => resources.put(path, content, release, now()))
    return { status: 200 }
  }

  async removeResource(exchange: HttpExchange, name: readonly string[]): Promise<HttpReply> {
    const admin = await this.#authenticate(exchange)
    const path = parseResourcePath(name)
    this.#change(admin, 'resource.remove', path, () => {
      if (!this.#options.resources.remove(path)) throw notFound('ERR_RESOURCE_NOT_FOUND', `resource ${path}`)
    })
    return { status: 200 }
  }

  async listResources(exchange: HttpExchange): Promise<HttpReply> {
    await this.#authenticate(exchange)
    return { status: 200, body: { resources: this.#options.resources.list() } }
  }

  async putReference(exchange: HttpExchange): Promise<HttpReply> {
    const admin = await this.#authenticate(exchange)
    const document = Buffer.from(await exchange.body(MAX_REFERENCE_BYTES)).toString('utf8')
    const id = parseReferenceId(this.#options.parseReference(document).id)
    const { references, now } = this.#options
    this.#change(admin, 'reference-value.put', id, () => references.put(id, document, now()))
    return { status: 200, body: { id } }
  }

  async removeReference(exchange: HttpExchange, id: string): Promise<HttpReply> {
    const admin = await this.#authenticate(exchange)
    this.#change(admin, 'reference-value.remove', parseReferenceId(id), () => {
      if (!this.#options.references.remove(id)) throw notFound('ERR_REFERENCE_NOT_FOUND', `reference value ${id}`)
    })
    return { status: 200 }
  }

  async getReference(exchange: HttpExchange, id: string): Promise<HttpReply> {
    await this.#authenticate(exchange)
    const reference = this.#options.references.find(parseReferenceId(id))
    if (reference === undefined) throw notFound('ERR_REFERENCE_NOT_FOUND', `reference value ${id}`)
    return { status: 200, body: referenceJson(reference) }
  }

  async listReferences(exchange: HttpExchange): Promise<HttpReply> {
    await this.#authenticate(exchange)
    return { status: 200, body: { 'reference-values': this.#options.references.list().map(referenceJson) } }
  }

  /** GET /attestations?limit=N&verdict=accepted|refused, newest first. */
  async listAttestations(exchange: HttpExchange): Promise<HttpReply> {
    await this.#authenticate(exchange)
    const verdict = exchange.query.get('verdict')
    if (verdict !== null && verdict !== 'accepted' && verdict !== 'refused') {
      throw new UsageError('ERR_QUERY', `verdict ${JSON.stringify(verdict)} is neither "accepted" nor "refused"`)
    }
    const limit = listLimit(exchange)
    const records = this.#options.log.list(verdict === null ? { limit } : { limit, verdict })
    return { status: 200, body: { attestations: records } }
  }

  /** GET /attestations/ID: all records of the handshake that the id belongs to. */
  async explain(exchange: HttpExchange, id: string): Promise<HttpReply> {
    await this.#authenticate(exchange)
    const records = this.#options.log.handshakeOf(id.slice(0, 64))
    if (records.length === 0)
      throw notFound('ERR_ATTESTATION_NOT_FOUND', `attestation ${JSON.stringify(id.slice(0, 64))}`)
    return { status: 200, body: { attestations: records } }
  }

  async listAudit(exchange: HttpExchange): Promise<HttpReply> {
    await this.#authenticate(exchange)
    return { status: 200, body: { audit: this.#options.audit.list(listLimit(exchange)) } }
  }

  /** GET /audit/tree, /audit/leaves?from=N&limit=N, /audit/consistency?older=N&newer=N, /audit/inclusion?index=N&size=N. */
  async checkAudit(exchange: HttpExchange, what: string): Promise<HttpReply> {
    await this.#authenticate(exchange)
    const { audit } = this.#options
    const number = (name: string): number => queryNumber(exchange, name)
    switch (what) {
      case 'tree':
        return { status: 200, body: audit.tree() }
      case 'leaves':
        return { status: 200, body: { leaves: audit.leaves(number('from'), listLimit(exchange)) } }
      case 'consistency':
        return { status: 200, body: { proof: audit.proveConsistency(number('older'), number('newer')) } }
      case 'inclusion':
        return { status: 200, body: { proof: audit.proveInclusion(number('index'), number('size')) } }
      default:
        throw notFound('ERR_NO_SUCH_PATH', `view ${JSON.stringify(what.slice(0, 64))} of the audit log`)
    }
  }

  async #authenticate(exchange: HttpExchange): Promise<string> {
    return await this.#options.authenticator.authenticate(exchange.headers.authorization)
  }

  #change(admin: string, action: string, subject: string, work: () => void): void {
    const { database, audit, now } = this.#options
    database.transaction(() => {
      work()
      audit.add({ at: now(), actor: `admin ${admin}`, action, subject, verdict: 'accepted' })
    })
  }
}

function referenceJson(reference: StoredReference): object {
  return { id: reference.id, createdAt: reference.createdAt, document: JSON.parse(reference.document) }
}

function listLimit(exchange: HttpExchange): number {
  const text = exchange.query.get('limit') ?? String(DEFAULT_LIST)
  const limit = /^\d{1,6}$/.test(text) ? Number(text) : 0
  if (limit < 1) throw new UsageError('ERR_QUERY', `limit ${JSON.stringify(text)} is not a positive whole number`)
  return Math.min(limit, MAX_LIST)
}

function queryNumber(exchange: HttpExchange, name: string): number {
  const text = exchange.query.get(name) ?? ''
  if (/^\d{1,15}$/.test(text)) return Number(text)
  throw new UsageError('ERR_QUERY', `${name} ${JSON.stringify(text.slice(0, 32))} is not a whole number`)
}

function notFound(code: string, what: string): UsageError {
  return new UsageError(code, `there is no ${what}`)
}
