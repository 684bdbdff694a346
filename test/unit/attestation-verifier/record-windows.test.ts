/** Which records of attestations go when there are too many. */
import test from 'ava'
import { RECORD_WINDOWS } from '#attestation/store/attestation-log'
import { IN_MEMORY, SqliteDatabase } from '#attestation/store/sqlite'

test('what is too old in one window of records is found by its index, without looking at the others', async (t) => {
  await using database = await SqliteDatabase.open(IN_MEMORY)
  for (const window of RECORD_WINDOWS) {
    const query = `SELECT seq FROM attestation_records WHERE tenant = ? AND ${window} ORDER BY seq DESC LIMIT 1 OFFSET ?`
    const plan = await database.all(`EXPLAIN QUERY PLAN ${query}`, 'default', 10)
    t.regex(plan.map(({ detail }) => String(detail)).join('\n'), /^SEARCH .* USING INDEX records_\w+ \(tenant=\?\)$/)
  }
})
