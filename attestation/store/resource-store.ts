/**
 * Resources that guests may be given: `repository/type/tag`, content, and when it may be released. A replaced resource
 * keeps its older versions, so that a mistake can be taken back; contents are sealed.
 */
import { DeniedError, MalformedError, UsageError } from '#protocol/errors'
import type { Database, Sql } from './database.ts'
import { parseReleaseCondition, type ReleaseCondition, type ReleaseLimits } from './release-condition.ts'
import { blob, integer, optionalInteger, type Row, text } from './row.ts'
import type { Sealing } from './sealing.ts'

export const MAX_RESOURCE_BYTES: number = 1024 * 1024
const MAX_SEGMENT_CHARACTERS = 128
/** Older versions are forgotten. */
const KEPT_VERSIONS = 10

/** The KBS protocol's rule for each of the three segments; it leaves no room for "..", empty names or escapes. */
const SEGMENT = /^[A-Za-z0-9_-]+[A-Za-z0-9_.-]*$/

/** When a resource is released, and to how many. */
export interface ReleaseTerms {
  readonly condition: ReleaseCondition
  /** Guests that may get this version; 1 makes it a one-time secret. Undefined: any number. */
  readonly maxHolders?: number
  readonly notBefore?: Date
  readonly notAfter?: Date
}

export interface ResourceInfo {
  /** `repository/type/tag` */
  readonly path: string
  readonly sizeBytes: number
  readonly release: ReleaseCondition
  readonly maxHolders: number | null
  readonly notBefore: Date | null
  readonly notAfter: Date | null
  /** Counts from 1, one more with each replacement. */
  readonly version: number
  readonly updatedAt: Date
}

export interface Resource extends ResourceInfo {
  readonly content: Uint8Array
}

export interface ResourceQuota {
  readonly maxResources: number
  /** Of all versions together. */
  readonly maxBytes: number
}

/** @throws MalformedError ERR_RESOURCE_NAME */
export function parseResourcePath(segments: readonly string[]): string {
  const fits = segments.every((segment) => segment.length <= MAX_SEGMENT_CHARACTERS && SEGMENT.test(segment))
  if (segments.length !== 3 || !fits) {
    throw new MalformedError(
      'ERR_RESOURCE_NAME',
      `${JSON.stringify(segments.join('/').slice(0, 256))} names no resource`,
      {
        hint: 'A resource is repository/type/tag: letters, digits, "_", "-", and "." except at the start.',
      },
    )
  }
  return segments.join('/')
}

const CURRENT =
  'version = (SELECT max(version) FROM resource_versions newer WHERE newer.tenant = r.tenant AND newer.path = r.path)'

export class ResourceStore {
  readonly #database: Database
  readonly #sealing: Sealing
  readonly #tenant: string

  constructor(options: { database: Database; sealing: Sealing; tenant: string }) {
    this.#database = options.database
    this.#sealing = options.sealing
    this.#tenant = options.tenant
  }

  /**
   * Creates or replaces; returns the new version.
   *
   * @throws UsageError ERR_RESOURCE_LIMIT when the tenant's quota, or the size of one resource, is exceeded
   */
  async put(
    sql: Sql,
    input: { path: string; content: Uint8Array; terms: ReleaseTerms; at: Date; quota: ResourceQuota },
  ): Promise<number> {
    const { path, content, terms, at } = input
    await this.#checkQuota(sql, input)
    const query = 'SELECT coalesce(max(version), 0) AS n FROM resource_versions WHERE tenant = ? AND path = ?'
    const version = integer(await sql.get(query, this.#tenant, path), 'n') + 1
    await sql.run(
      `INSERT INTO resource_versions
         (tenant, path, version, content, size, release, max_holders, not_before_ms, not_after_ms, created_ms)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      this.#tenant,
      path,
      version,
      this.#sealing.seal(content, this.#place(path, version)),
      content.byteLength,
      JSON.stringify(terms.condition),
      terms.maxHolders ?? null,
      terms.notBefore?.getTime() ?? null,
      terms.notAfter?.getTime() ?? null,
      at.getTime(),
    )
    const forget = 'DELETE FROM resource_versions WHERE tenant = ? AND path = ? AND version <= ?'
    await sql.run(forget, this.#tenant, path, version - KEPT_VERSIONS)
    return version
  }

  /** The current version. The terms come with it: content goes out only after they were checked, and `hold` succeeded. */
  async find(path: string): Promise<Resource | undefined> {
    const row = await this.#database.get(
      `SELECT * FROM resource_versions r WHERE tenant = ? AND path = ? AND ${CURRENT}`,
      this.#tenant,
      path,
    )
    if (row === undefined) return undefined
    const info = infoOf(row)
    return { ...info, content: this.#sealing.open(blob(row, 'content'), this.#place(path, info.version)) }
  }

  /**
   * Counts the guest among those that have this version. The same guest may ask again, so that an answer that was lost
   * on its way is no secret lost.
   *
   * @param holder names the guest's key; see RFC 7638
   * @throws DeniedError ERR_RESOURCE_SPENT when others have used it up
   */
  async hold(sql: Sql, resource: ResourceInfo, holder: string, at: Date): Promise<void> {
    const { path, version, maxHolders } = resource
    if (maxHolders === null) return
    const place = [this.#tenant, path, version] as const
    const known = 'SELECT 1 AS found FROM resource_holders WHERE tenant = ? AND path = ? AND version = ? AND holder = ?'
    if ((await sql.get(known, ...place, holder)) !== undefined) return
    const count = 'SELECT count(*) AS n FROM resource_holders WHERE tenant = ? AND path = ? AND version = ?'
    const holders = integer(await sql.get(count, ...place), 'n')
    if (holders >= maxHolders) {
      throw new DeniedError(
        'ERR_RESOURCE_SPENT',
        `${path} was given to ${holders} guests already, the most it is for`,
        {
          field: 'max-holders',
          allowed: String(maxHolders),
          asked: String(holders + 1),
          hint: 'Store it again for another guest.',
        },
      )
    }
    const insert = 'INSERT INTO resource_holders (tenant, path, version, holder, at_ms) VALUES (?, ?, ?, ?, ?)'
    await sql.run(insert, ...place, holder, at.getTime())
  }

  /** Makes the version before the current one current again. False when there is none. */
  async rollBack(sql: Sql, path: string): Promise<boolean> {
    const versions = await sql.all(
      'SELECT version FROM resource_versions WHERE tenant = ? AND path = ? ORDER BY version DESC LIMIT 2',
      this.#tenant,
      path,
    )
    const [current, older] = versions.map((row) => integer(row, 'version'))
    if (current === undefined || older === undefined) return false
    await this.#forget(sql, path, 'AND version = ?', current)
    return true
  }

  /** With all its versions. */
  async remove(sql: Sql, path: string): Promise<boolean> {
    return (await this.#forget(sql, path, '')) > 0
  }

  /** Current versions, without the contents. */
  async list(): Promise<readonly ResourceInfo[]> {
    const query = `SELECT path, size, release, max_holders, not_before_ms, not_after_ms, version, created_ms
                   FROM resource_versions r WHERE tenant = ? AND ${CURRENT} ORDER BY path`
    return (await this.#database.all(query, this.#tenant)).map(infoOf)
  }

  async #forget(sql: Sql, path: string, condition: string, ...values: readonly number[]): Promise<number> {
    const where = `WHERE tenant = ? AND path = ? ${condition}`
    await sql.run(`DELETE FROM resource_holders ${where}`, this.#tenant, path, ...values)
    return await sql.run(`DELETE FROM resource_versions ${where}`, this.#tenant, path, ...values)
  }

  async #checkQuota(sql: Sql, input: { path: string; content: Uint8Array; quota: ResourceQuota }): Promise<void> {
    const { path, content, quota } = input
    if (content.byteLength > MAX_RESOURCE_BYTES) {
      throw limit(`the resource has ${content.byteLength} bytes, at most ${MAX_RESOURCE_BYTES} are stored`)
    }
    const row = await sql.get(
      `SELECT count(DISTINCT CASE WHEN path <> ? THEN path END) AS others, coalesce(sum(size), 0) AS bytes
       FROM resource_versions WHERE tenant = ?`,
      path,
      this.#tenant,
    )
    const [others, bytes] = [integer(row, 'others'), Number(row?.bytes)]
    if (others >= quota.maxResources)
      throw limit(`there are ${others} resources already, the most this tenant may have`)
    if (bytes + content.byteLength > quota.maxBytes) {
      throw limit(`resources and their older versions have ${bytes} bytes, this tenant may have ${quota.maxBytes}`)
    }
  }

  #place(path: string, version: number): string {
    return `resource ${this.#tenant} ${path} ${version}`
  }
}

function infoOf(row: Row): ResourceInfo {
  const date = (column: string): Date | null => {
    const value = optionalInteger(row, column)
    return value === undefined ? null : new Date(value)
  }
  return {
    path: text(row, 'path'),
    sizeBytes: integer(row, 'size'),
    release: storedRelease(row),
    maxHolders: optionalInteger(row, 'max_holders') ?? null,
    notBefore: date('not_before_ms'),
    notAfter: date('not_after_ms'),
    version: integer(row, 'version'),
    updatedAt: new Date(integer(row, 'created_ms')),
  }
}

function storedRelease(row: Row): ReleaseCondition {
  const stored: ReleaseLimits & { kind: string; manifests?: readonly string[] } = JSON.parse(text(row, 'release'))
  const { kind, manifests = [], ...limits } = stored
  return parseReleaseCondition(kind, manifests, limits)
}

function limit(message: string): UsageError {
  return new UsageError('ERR_RESOURCE_LIMIT', message, {
    hint: 'Remove resources that are not needed, or ask for a larger quota.',
  })
}
