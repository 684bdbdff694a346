/** Answers of AMD and Intel, kept under the address they came from. They hold no secrets and are of no tenant. */
import { fromBase64, toBase64 } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import type { CollateralFile } from '../evidence/collateral.ts'
import type { Database, Sql } from '../store/database.ts'
import { blob, integer, type Row, text } from '../store/row.ts'

export interface StoredAnswer {
  readonly url: string
  readonly files: readonly CollateralFile[]
  readonly fetchedAt: Date
  /** When it is time to ask again. */
  readonly staleAt: Date
}

const CODE = 'ERR_COLLATERAL_ANSWER'
const MAX_FILES = 8
/** As base64 in JSON. */
const MAX_CHARS = 12 * 1024 * 1024
/** Certificates of chips come and go; the oldest are forgotten. */
const MAX_KEPT = 20_000
/** Answers that are read at once. */
const PAGE = 8

export class AnswerStore {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  async find(url: string): Promise<StoredAnswer | undefined> {
    const row = await this.#database.get('SELECT * FROM collateral_answers WHERE url = ?', url)
    return row === undefined ? undefined : toAnswer(row)
  }

  async put(answer: StoredAnswer): Promise<void> {
    await this.#database.transaction((sql) => this.putAll(sql, [answer]))
  }

  /** In the transaction of the caller. */
  async putAll(sql: Sql, answers: readonly StoredAnswer[]): Promise<void> {
    for (const { url, files, fetchedAt, staleAt } of answers) {
      await sql.run(
        `INSERT INTO collateral_answers (url, body, fetched_ms, stale_ms) VALUES (?, ?, ?, ?)
         ON CONFLICT (url) DO UPDATE SET body = excluded.body, fetched_ms = excluded.fetched_ms,
           stale_ms = excluded.stale_ms`,
        url,
        Buffer.from(encodeFiles(files)),
        fetchedAt.getTime(),
        staleAt.getTime(),
      )
    }
    await trim(sql)
  }

  /** By address, from the first behind `after` on; read as they are asked for. */
  async *behind(after: string): AsyncIterable<StoredAnswer> {
    const query = `SELECT * FROM collateral_answers WHERE url > ? ORDER BY url LIMIT ${PAGE}`
    for (let last = after; ; ) {
      const answers = (await this.#database.all(query, last)).map(toAnswer)
      yield* answers
      if (answers.length < PAGE) return
      last = answers.at(-1)?.url ?? last
    }
  }

  /** By address. */
  async list(): Promise<readonly StoredAnswer[]> {
    return (await this.#database.all('SELECT * FROM collateral_answers ORDER BY url')).map(toAnswer)
  }
}

async function trim(sql: Sql): Promise<void> {
  const count = integer(await sql.get('SELECT count(*) AS n FROM collateral_answers'), 'n')
  if (count <= MAX_KEPT) return
  await sql.run(
    `DELETE FROM collateral_answers WHERE url IN
       (SELECT url FROM collateral_answers ORDER BY fetched_ms LIMIT ?)`,
    count - MAX_KEPT,
  )
}

export function encodeFiles(files: readonly CollateralFile[]): string {
  return JSON.stringify({ files: files.map(({ name, bytes }) => ({ name, body: toBase64(bytes) })) })
}

/** Throws `MalformedError` ERR_COLLATERAL_ANSWER, ERR_BASE64. */
export function parseFiles(fields: JsonFields): CollateralFile[] {
  return fields.objects('files', MAX_FILES).map((file) => ({
    name: file.string('name', 1024),
    bytes: fromBase64(file.string('body', MAX_CHARS), 'collateral file'),
  }))
}

function toAnswer(row: Row): StoredAnswer {
  const body = Buffer.from(blob(row, 'body')).toString('utf8')
  if (body.length > MAX_CHARS) throw new MalformedError(CODE, 'a stored answer is too large')
  return {
    url: text(row, 'url'),
    files: parseFiles(JsonFields.parse(body, 'stored answer', { code: CODE, maxChars: MAX_CHARS })),
    fetchedAt: new Date(integer(row, 'fetched_ms')),
    staleAt: new Date(integer(row, 'stale_ms')),
  }
}
