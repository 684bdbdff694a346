/** What the snapshotter remembers, in SQLite: a snapshot is a row and a directory of its number. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync, type SQLOutputValue } from 'node:sqlite'
import { Kind } from '../containerd/gen/snapshots_pb.ts'

export interface Snapshot {
  /** Directory `snapshots/<id>`. */
  readonly id: number
  /** containerd's key; with its namespace in front, and opaque. */
  readonly name: string
  /** Empty: none. */
  readonly parent: string
  readonly kind: Kind
  /** A layer that was never fetched: the guest has it, this machine has not. Of a container's root: none of its layers is used. */
  readonly skipped: boolean
  readonly labels: Readonly<Record<string, string>>
  readonly createdAtMs: number
  readonly updatedAtMs: number
}

export class SnapshotStore implements Disposable {
  readonly #db: DatabaseSync
  readonly directory: string

  constructor(directory: string) {
    this.directory = directory
    mkdirSync(join(directory, 'snapshots'), { recursive: true, mode: 0o700 })
    this.#db = new DatabaseSync(join(directory, 'snapshots.db'))
    this.#db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;')
    this.#db.exec(`CREATE TABLE IF NOT EXISTS snapshots (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      name TEXT NOT NULL UNIQUE,
      parent TEXT NOT NULL,
      kind INTEGER NOT NULL,
      skipped INTEGER NOT NULL,
      labels TEXT NOT NULL,
      created_at_ms INTEGER NOT NULL,
      updated_at_ms INTEGER NOT NULL
    ) STRICT`)
  }

  /** Undefined when the name is taken. */
  insert(snapshot: Pick<Snapshot, 'name' | 'parent' | 'kind' | 'skipped' | 'labels'>): Snapshot | undefined {
    const { name, parent, kind, skipped, labels } = snapshot
    if (this.find(name) !== undefined) return undefined
    const now = Date.now()
    this.#db
      .prepare(
        'INSERT INTO snapshots (name, parent, kind, skipped, labels, created_at_ms, updated_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)',
      )
      .run(name, parent, kind, skipped ? 1 : 0, JSON.stringify(labels), now, now)
    return this.find(name)
  }

  find(name: string): Snapshot | undefined {
    const row = this.#db.prepare('SELECT * FROM snapshots WHERE name = ?').get(name)
    return row === undefined ? undefined : fromRow(row)
  }

  all(): readonly Snapshot[] {
    const rows = this.#db.prepare('SELECT * FROM snapshots ORDER BY id').all()
    return rows.map(fromRow)
  }

  hasChildren(name: string): boolean {
    return this.#db.prepare('SELECT 1 FROM snapshots WHERE parent = ? LIMIT 1').get(name) !== undefined
  }

  /** From the given snapshot's parent to the lowest layer. */
  ancestors(snapshot: Snapshot): readonly Snapshot[] {
    const chain: Snapshot[] = []
    for (let parent = snapshot.parent; parent !== ''; ) {
      const found = this.find(parent)
      if (found === undefined) break
      chain.push(found)
      parent = found.parent
    }
    return chain
  }

  change(id: number, changes: Partial<Pick<Snapshot, 'name' | 'kind' | 'labels'>>): void {
    const { name, kind, labels } = changes
    this.#db
      .prepare(
        `UPDATE snapshots SET name = coalesce(?, name), kind = coalesce(?, kind), labels = coalesce(?, labels),
         updated_at_ms = ? WHERE id = ?`,
      )
      .run(name ?? null, kind ?? null, labels === undefined ? null : JSON.stringify(labels), Date.now(), id)
  }

  remove(id: number): void {
    this.#db.prepare('DELETE FROM snapshots WHERE id = ?').run(id)
  }

  [Symbol.dispose](): void {
    this.#db.close()
  }
}

/** The table is STRICT: each column holds what it was declared as. */
function fromRow(row: Readonly<Record<string, SQLOutputValue>>): Snapshot {
  const kind = row.kind === Kind.COMMITTED ? Kind.COMMITTED : row.kind === Kind.VIEW ? Kind.VIEW : Kind.ACTIVE
  return {
    id: Number(row.id),
    name: String(row.name),
    parent: String(row.parent),
    kind,
    skipped: row.skipped === 1,
    // Our own words, written by `insert` and `change`.
    labels: JSON.parse(String(row.labels)) as Record<string, string>,
    createdAtMs: Number(row.created_at_ms),
    updatedAtMs: Number(row.updated_at_ms),
  }
}
