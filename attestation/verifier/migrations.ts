/** How the verifier's store came to its present schema, step by step. */
import { appendLeaf, leafText } from './audit-log.ts'
import type { Database } from './database.ts'
import { integer, optionalText, text } from './row.ts'

/** Entry n brings a file from version n to n + 1. Entries are never edited after a release, only added. */
export const MIGRATIONS: readonly (string | ((store: Database) => void))[] = [
  `
  CREATE TABLE keys (
    kid TEXT PRIMARY KEY, kind TEXT NOT NULL, created_ms INTEGER NOT NULL, material TEXT NOT NULL
  ) STRICT;
  CREATE TABLE spent_challenges (id TEXT PRIMARY KEY, expires_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE INDEX spent_by_expiry ON spent_challenges (expires_ms);
  CREATE TABLE attestations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, handshake TEXT, at_ms INTEGER NOT NULL,
    stage TEXT NOT NULL, tee TEXT NOT NULL, verdict TEXT NOT NULL, code TEXT, reason TEXT, hint TEXT,
    details TEXT NOT NULL, claims TEXT
  ) STRICT;
  CREATE INDEX attestations_by_handshake ON attestations (handshake);
  CREATE TABLE resources (
    path TEXT PRIMARY KEY, content BLOB NOT NULL, release TEXT NOT NULL, version INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE reference_values (id TEXT PRIMARY KEY, document TEXT NOT NULL, created_ms INTEGER NOT NULL) STRICT;
  CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    subject TEXT NOT NULL, verdict TEXT NOT NULL, correlation TEXT
  ) STRICT;
  `,
  moveAuditIntoTree,
]

/** The first schema kept a plain table; its entries become the first leaves of the tree, in their order. */
function moveAuditIntoTree(store: Database): void {
  store.execute(`
    CREATE TABLE audit_leaves (position INTEGER PRIMARY KEY, leaf TEXT NOT NULL) STRICT;
    CREATE TABLE audit_nodes (
      level INTEGER NOT NULL, position INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (level, position)
    ) STRICT, WITHOUT ROWID;
  `)
  for (const row of store.all('SELECT * FROM audit ORDER BY seq')) {
    const at = new Date(integer(row, 'at_ms'))
    const verdict = text(row, 'verdict') === 'accepted' ? 'accepted' : 'refused'
    const [actor, action, subject] = [text(row, 'actor'), text(row, 'action'), text(row, 'subject')]
    appendLeaf(store, leafText({ at, actor, action, subject, verdict, correlation: optionalText(row, 'correlation') }))
  }
  store.execute('DROP TABLE audit')
}
