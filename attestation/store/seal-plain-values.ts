/** Seals what a store from before sealing held in plain, once, when it is opened. */
import type { Database } from './database.ts'
import { blob, integer, text } from './row.ts'
import { isMarkedPlain, type Sealing } from './sealing.ts'

export async function sealPlainValues(database: Database, sealing: Sealing): Promise<void> {
  await database.transaction(async (sql) => {
    for (const row of await sql.all('SELECT tenant, kind, kid, material FROM signing_keys')) {
      const [tenant, kind, kid, value] = [
        text(row, 'tenant'),
        text(row, 'kind'),
        text(row, 'kid'),
        blob(row, 'material'),
      ]
      if (!isMarkedPlain(value)) continue
      const sealed = sealing.seal(value.slice(1), `key ${tenant} ${kind} ${kid}`)
      const update = 'UPDATE signing_keys SET material = ? WHERE tenant = ? AND kind = ? AND kid = ?'
      await sql.run(update, sealed, tenant, kind, kid)
    }
    for (const row of await sql.all(
      'SELECT tenant, path, version, substr(content, 1, 1) AS mark FROM resource_versions',
    )) {
      const [tenant, path, version] = [text(row, 'tenant'), text(row, 'path'), integer(row, 'version')]
      if (!isMarkedPlain(blob(row, 'mark'))) continue
      const where = 'WHERE tenant = ? AND path = ? AND version = ?'
      const found = await sql.get(`SELECT content FROM resource_versions ${where}`, tenant, path, version)
      const sealed = sealing.seal(blob(found, 'content').slice(1), `resource ${tenant} ${path} ${version}`)
      await sql.run(`UPDATE resource_versions SET content = ? ${where}`, sealed, tenant, path, version)
    }
  })
}
