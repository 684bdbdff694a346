/** Resources that guests may be given: `repository/type/tag`, content, release condition. */
import { MalformedError, UsageError } from '#protocol/errors'
import type { Database } from './database.ts'
import { parseReleaseCondition, type ReleaseCondition } from './release.ts'
import { blob, integer, type Row, text } from './row.ts'

export const MAX_RESOURCE_BYTES: number = 1024 * 1024
const MAX_RESOURCES = 10_000
const MAX_SEGMENT_CHARACTERS = 128

/** The KBS protocol's rule for each of the three segments; it leaves no room for "..", empty names or escapes. */
const SEGMENT = /^[A-Za-z0-9_-]+[A-Za-z0-9_.-]*$/

export interface ResourceInfo {
  /** `repository/type/tag` */
  readonly path: string
  readonly sizeBytes: number
  readonly release: ReleaseCondition
  /** Counts from 1, one more with each replacement. */
  readonly version: number
  readonly updatedAt: Date
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

export class ResourceStore {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  /**
   * Creates or replaces. Call inside a transaction.
   *
   * @throws UsageError ERR_RESOURCE_LIMIT when there are too many, or the content is too large
   */
  put(path: string, content: Uint8Array, release: ReleaseCondition, at: Date): void {
    if (content.byteLength > MAX_RESOURCE_BYTES) {
      throw new UsageError(
        'ERR_RESOURCE_LIMIT',
        `the resource has ${content.byteLength} bytes, at most ${MAX_RESOURCE_BYTES} are stored`,
      )
    }
    const count = integer(this.#database.get('SELECT count(*) AS n FROM resources WHERE path <> ?', path), 'n')
    if (count >= MAX_RESOURCES) {
      throw new UsageError('ERR_RESOURCE_LIMIT', `there are ${count} resources already, the most this store takes`)
    }
    this.#database.run(
      `INSERT INTO resources (path, content, release, version, updated_ms) VALUES (?, ?, ?, 1, ?)
       ON CONFLICT (path) DO UPDATE SET content = excluded.content, release = excluded.release,
         version = version + 1, updated_ms = excluded.updated_ms`,
      path,
      content,
      JSON.stringify(release),
      at.getTime(),
    )
  }

  /** The release condition first: content is read by callers that have checked it. */
  find(path: string): { readonly release: ReleaseCondition; readonly content: Uint8Array } | undefined {
    const row = this.#database.get('SELECT content, release FROM resources WHERE path = ?', path)
    return row === undefined ? undefined : { release: storedRelease(row), content: blob(row, 'content') }
  }

  remove(path: string): boolean {
    return this.#database.run('DELETE FROM resources WHERE path = ?', path) > 0
  }

  /** Everything but the contents. */
  list(): readonly ResourceInfo[] {
    return this.#database
      .all('SELECT path, length(content) AS size, release, version, updated_ms FROM resources ORDER BY path')
      .map((row) => ({
        path: text(row, 'path'),
        sizeBytes: integer(row, 'size'),
        release: storedRelease(row),
        version: integer(row, 'version'),
        updatedAt: new Date(integer(row, 'updated_ms')),
      }))
  }
}

function storedRelease(row: Row): ReleaseCondition {
  const { kind, manifests }: { kind: string; manifests?: readonly string[] } = JSON.parse(text(row, 'release'))
  return parseReleaseCondition(kind, manifests ?? [])
}
