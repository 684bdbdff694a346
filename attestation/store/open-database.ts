/** A verifier's store by its address: a SQLite file, or `postgresql://…`. */
import type { Database } from './database.ts'
import { integer } from './row.ts'
import { absentStore } from './schema-version.ts'
import { SqliteDatabase } from './sqlite.ts'

interface Kind {
  open(path: string): Promise<Database>
  openExisting(path: string): Promise<Database>
}

/** Makes the store where there is none, and brings an older one to this version. @throws UnavailableError ERR_STORE_OPEN, ERR_STORE_VERSION */
export async function openDatabase(path: string): Promise<Database> {
  return await (await kindOf(path)).open(path)
}

/**
 * The store of a verifier, as it is: none is made, none is changed into another version, and one that no verifier has used
 * yet is not taken for a store that is empty.
 *
 * @throws UsageError ERR_STORE_ABSENT
 * @throws UnavailableError ERR_STORE_OPEN, ERR_STORE_VERSION
 */
export async function openExistingDatabase(path: string): Promise<Database> {
  const database = await (await kindOf(path)).openExisting(path)
  try {
    // A verifier makes its first data key as soon as it has a store.
    if (integer(await database.get('SELECT count(*) AS n FROM data_keys'), 'n') === 0) throw absentStore()
    return database
  } catch (error) {
    await database[Symbol.asyncDispose]()
    throw error
  }
}

async function kindOf(path: string): Promise<Kind> {
  if (!/^postgres(ql)?:\/\//.test(path)) return SqliteDatabase
  return (await import('./postgres.ts')).PostgresDatabase // most verifiers never need its client
}
