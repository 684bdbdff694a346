/**
 * The administrator's side of the verifier's API, for the command line. Trust in the server is the transport's matter:
 * give it the CA of the verifier's certificate and no other.
 */
import { importJWK, type JWK, SignJWT } from 'jose'
import type { HttpTransport } from '#protocol/http-transport'
import type { AuditEntrySource } from '../../audit/verify-entry.ts'
import { type AuditSource, parseAuditCheckpoint } from '../../audit/verify-log.ts'
import { answerError, exchangeExplained, jsonOf, type VerifierProblem } from '../../client/verifier-http.ts'
import type { AttestationRecord } from '../../store/attestation-log.ts'
import type { AuditEntry } from '../../store/audit-log.ts'
import type { StoredGrant } from '../../store/identity-store.ts'
import type { StoredPolicy } from '../../store/policy-store.ts'
import type { ReferenceState } from '../../store/reference-store.ts'
import type { ReleaseCondition } from '../../store/release-condition.ts'
import type { ReleaseTerms, ResourceInfo } from '../../store/resource-store.ts'
import type { Role, TenantSettings } from '../../store/tenant-store.ts'
import { adminKeyId } from './authenticator.ts'
import { AdministratorRefusal } from './refusal.ts'
import { releaseQuery } from './release-query.ts'

export interface ReferenceInfo {
  readonly id: string
  readonly state: ReferenceState
  /** Of a retired one: until when it counts, RFC 3339. */
  readonly until: string | null
  readonly createdAt: Date
  readonly document: unknown
}

export interface CollateralInfo {
  readonly url: string
  readonly fetchedAt: Date
  /** When the maker is asked again, RFC 3339. */
  readonly staleAt: string
}

export interface TenantInfo extends Omit<TenantSettings, 'admins'> {
  readonly name: string
  readonly createdAt: Date
  readonly admins: readonly { readonly id: string; readonly role: Role }[]
}

export interface AdminClientOptions {
  readonly http: HttpTransport
  /** Verifier URL, with or without `/kbs/v0`. */
  readonly url: string
  /** Private Ed25519 JWK, see `createAdminKey`. */
  readonly adminKey: JWK
  readonly now?: () => Date
}

const MAX_ANSWER_BYTES = 64 * 1024 * 1024
/** Long enough for one request, short enough to be worthless when found in a log. */
const TOKEN_LIFETIME_S = 60

/**
 * All methods throw `AdministratorRefusal` ERR_VERIFIER_REFUSED with what the verifier says, and as `exchangeExplained` does:
 * ERR_VERIFIER_UNAVAILABLE, ERR_VERIFIER_TLS, ERR_VERIFIER_ANSWER.
 */
export class VerifierAdminClient {
  readonly #options: AdminClientOptions
  readonly #base: string

  constructor(options: AdminClientOptions) {
    adminKeyId(options.adminKey) // refuses other kinds of keys now, not at the first request
    this.#options = options
    this.#base = `${options.url.replace(/\/+$/, '').replace(/\/kbs\/v0$/, '')}/kbs/v0`
  }

  /** @param path `repository/type/tag` */
  async putResource(
    path: string,
    content: Uint8Array,
    release: ReleaseCondition = { kind: 'attested' },
    terms: Omit<ReleaseTerms, 'condition'> = {},
  ): Promise<void> {
    const query = releaseQuery(release)
    if (terms.maxHolders !== undefined) query.set('max-holders', String(terms.maxHolders))
    if (terms.notBefore !== undefined) query.set('not-before', terms.notBefore.toISOString())
    if (terms.notAfter !== undefined) query.set('not-after', terms.notAfter.toISOString())
    await this.#send('POST', `/resource/${path}?${query.toString()}`, content)
  }

  async removeResource(path: string): Promise<void> {
    await this.#send('DELETE', `/resource/${path}`)
  }

  /** Makes the version before the current one current again. */
  async rollBackResource(path: string): Promise<void> {
    await this.#send('POST', `/resource-rollback/${path}`)
  }

  /** Names, sizes and conditions; contents never leave the verifier this way. */
  async listResources(): Promise<readonly ResourceInfo[]> {
    return dated<ResourceInfo>(await this.#get('/resources', 'resources'), 'updatedAt')
  }

  /**
   * Returns the id it is registered under.
   *
   * @param document JSON text as `caisson measure` prints it
   * @param state a candidate matches nothing until it is promoted
   */
  async putReference(document: string, state: 'active' | 'candidate' = 'active'): Promise<string> {
    const body = new TextEncoder().encode(document)
    const reply: unknown = jsonOf(await this.#send('POST', `/reference-value?state=${state}`, body))
    const id = member(reply, 'id')
    if (typeof id !== 'string') throw answerError('no id for the reference values')
    return id
  }

  async removeReference(id: string): Promise<void> {
    await this.#send('DELETE', `/reference-value/${encodeURIComponent(id)}`)
  }

  async promoteReference(id: string): Promise<void> {
    await this.#send('POST', `/reference-value-promote/${encodeURIComponent(id)}`)
  }

  /** @param until when it stops counting; default now */
  async retireReference(id: string, until?: Date): Promise<void> {
    const query = until === undefined ? '' : `?until=${until.toISOString()}`
    await this.#send('POST', `/reference-value-retire/${encodeURIComponent(id)}${query}`)
  }

  /** Creates or replaces. @param document YAML of docs/appraisal.md */
  async putPolicy(id: string, document: string): Promise<void> {
    await this.#send('POST', `/appraisal-policy/${encodeURIComponent(id)}`, new TextEncoder().encode(document))
  }

  /** Whether the verifier would take the document; nothing is kept. */
  async checkPolicy(document: string): Promise<void> {
    await this.#send('POST', '/appraisal-policy-check', new TextEncoder().encode(document))
  }

  async removePolicy(id: string): Promise<void> {
    await this.#send('DELETE', `/appraisal-policy/${encodeURIComponent(id)}`)
  }

  /** By name, with their documents. */
  async listPolicies(): Promise<readonly StoredPolicy[]> {
    return dated<StoredPolicy>(await this.#get('/appraisal-policies', 'appraisal-policies'), 'createdAt')
  }

  /** Lets guests that meet the condition have certificates with any of the names. Creates or replaces. */
  async putIdentity(
    id: string,
    names: readonly string[],
    release: ReleaseCondition = { kind: 'attested' },
  ): Promise<void> {
    const query = releaseQuery(release)
    for (const name of names) query.append('name', name)
    await this.#send('POST', `/identity-grant/${encodeURIComponent(id)}?${query.toString()}`)
  }

  /** No further certificates; those that were issued count until they expire. */
  async removeIdentity(id: string): Promise<void> {
    await this.#send('DELETE', `/identity-grant/${encodeURIComponent(id)}`)
  }

  async listIdentities(): Promise<readonly StoredGrant[]> {
    return dated<StoredGrant>(await this.#get('/identity-grants', 'identity-grants'), 'createdAt')
  }

  /** Collateral of AMD and Intel that the verifier keeps, without its contents. For administrators of the service. */
  async listCollateral(): Promise<readonly CollateralInfo[]> {
    return dated<CollateralInfo>(await this.#get('/collateral', 'collateral'), 'fetchedAt')
  }

  /** All of it, in bundles that `importCollateral` takes, each on one line. */
  async *exportCollateral(): AsyncIterable<Uint8Array> {
    for (let after = ''; ; ) {
      const bundle = await this.#send('GET', `/collateral/bundle?${new URLSearchParams({ after }).toString()}`)
      const answers = member(jsonOf(bundle), 'answers')
      if (!Array.isArray(answers)) throw answerError('a bundle without answers')
      if (answers.length === 0) return
      yield bundle
      const last = member(answers.at(-1), 'url')
      if (typeof last !== 'string' || last === after) throw answerError('a bundle that ends nowhere')
      after = last
    }
  }

  /** How many answers are in the bundle. @param bundle one that `exportCollateral` gave */
  async importCollateral(bundle: Uint8Array): Promise<number> {
    const imported = member(jsonOf(await this.#send('POST', '/collateral', bundle)), 'imported')
    if (typeof imported !== 'number') throw answerError('no number of imported answers')
    return imported
  }

  /** Creates a tenant or changes the settings that are given. Its services are below `/t/NAME`. */
  async putTenant(name: string, settings: Partial<TenantSettings>): Promise<void> {
    await this.#send('POST', `/tenant/${encodeURIComponent(name)}`, new TextEncoder().encode(JSON.stringify(settings)))
  }

  /** With everything it has. */
  async removeTenant(name: string): Promise<void> {
    await this.#send('DELETE', `/tenant/${encodeURIComponent(name)}`)
  }

  async listTenants(): Promise<readonly TenantInfo[]> {
    return dated<TenantInfo>(await this.#get('/tenants', 'tenants'), 'createdAt')
  }

  async listReferences(): Promise<readonly ReferenceInfo[]> {
    return dated<ReferenceInfo>(await this.#get('/reference-values', 'reference-values'), 'createdAt')
  }

  /** Newest first. @param options.limit default 50 */
  async listAttestations(
    options: { limit?: number; verdict?: 'accepted' | 'refused' } = {},
  ): Promise<readonly AttestationRecord[]> {
    const query = new URLSearchParams(options.verdict === undefined ? {} : { verdict: options.verdict })
    query.set('limit', String(options.limit ?? 50))
    return dated<AttestationRecord>(await this.#get(`/attestations?${query.toString()}`, 'attestations'), 'at')
  }

  /** The record of a correlation id, then others of its handshake, oldest first; at most 100. */
  async explain(correlationId: string): Promise<readonly AttestationRecord[]> {
    const path = `/attestations/${encodeURIComponent(correlationId)}`
    return dated<AttestationRecord>(await this.#get(path, 'attestations'), 'at')
  }

  /** Newest first. @param limit default 50 */
  async listAudit(limit = 50): Promise<readonly AuditEntry[]> {
    return dated<AuditEntry>(await this.#get(`/audit?limit=${limit}`, 'audit'), 'at')
  }

  /** The audit log as something to check, see `verifyAuditLog` and `verifyAuditEntry`. */
  auditSource(): AuditSource & AuditEntrySource {
    const strings = async (path: string, name: string): Promise<readonly string[]> =>
      (await this.#get(path, name)).map((item) => {
        if (typeof item !== 'string') throw answerError(`a ${name} entry that is no text`)
        return item
      })
    return {
      tree: async () => parseAuditCheckpoint(new TextDecoder().decode(await this.#send('GET', '/audit/tree'))),
      leaves: (from, limit) => strings(`/audit/leaves?from=${from}&limit=${limit}`, 'leaves'),
      proveConsistency: (older, newer) => strings(`/audit/consistency?older=${older}&newer=${newer}`, 'proof'),
      proveInclusion: (index, size) => strings(`/audit/inclusion?index=${index}&size=${size}`, 'proof'),
    }
  }

  async #get(path: string, name: string): Promise<readonly unknown[]> {
    const list = member(jsonOf(await this.#send('GET', path)), name)
    if (!Array.isArray(list)) throw answerError(`no list of ${name}`)
    return list
  }

  async #send(method: 'GET' | 'POST' | 'DELETE', path: string, body?: Uint8Array): Promise<Uint8Array> {
    const { http } = this.#options
    const headers = { authorization: `Bearer ${await this.#token()}`, 'content-type': 'application/octet-stream' }
    const request = { method, url: this.#base + path, headers }
    const asked = body === undefined ? request : { ...request, body }
    const refused = ({ refusal, detail }: VerifierProblem): Error => new AdministratorRefusal(refusal, detail)
    return (await exchangeExplained(http, asked, { maxBytes: MAX_ANSWER_BYTES, refused })).body
  }

  async #token(): Promise<string> {
    const { adminKey, now } = this.#options
    const iat = Math.floor((now?.() ?? new Date()).getTime() / 1000)
    return await new SignJWT({ iat, exp: iat + TOKEN_LIFETIME_S })
      .setProtectedHeader({ alg: 'EdDSA', typ: 'JWT', kid: adminKeyId(adminKey) })
      .sign(await importJWK(adminKey, 'EdDSA'))
  }
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Object.getOwnPropertyDescriptor(value, name)?.value : undefined
}

/** The tenant's own verifier wrote these, over TLS that names it: members are taken as they come, but times are parsed. */
function dated<T extends object>(list: readonly unknown[], name: keyof T & string): readonly T[] {
  return list.map((item) => {
    const at = member(item, name)
    if (typeof item !== 'object' || item === null || typeof at !== 'string')
      throw answerError(`an entry without ${name}`)
    return Object.assign(Object.create(null), item, { [name]: new Date(at) })
  })
}
