import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { type AuditCheckpoint, verifyAuditLog } from '#attestation/audit/verify-log'
import { AuditLog } from '#attestation/store/audit-log'
import { LocalKeyWrapper } from '#attestation/store/key-wrapper'
import { ResourceStore } from '#attestation/store/resource-store'
import { Sealing } from '#attestation/store/sealing'
import { SqliteDatabase } from '#attestation/store/sqlite'

const KILLS = 25
const WRITER = new URL('./fixtures/store-writer.ts', import.meta.url).pathname

/** Kills the writer after so many lines of what it committed; returns them. */
async function writeUntilKilled(path: string, lines: number): Promise<readonly string[]> {
  const child = spawn(process.execPath, [WRITER, path], { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  let text = ''
  for await (const chunk of child.stdout.setEncoding('utf8')) {
    text += chunk
    if (text.split('\n').length > lines) child.kill('SIGKILL')
  }
  await exited
  return text.split('\n').slice(0, -1)
}

test('SQLite survives kill -9 at any write: what was said to be committed is there, whole, and the audit log only grew', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-kill-store-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const path = join(directory, 'verifier.db')
  let checkpoint: AuditCheckpoint | undefined
  const committed = new Map<string, number>()
  for (let round = 0; round < KILLS; round++) {
    // Another number each time, so that the kill falls into another write of the transaction.
    for (const line of await writeUntilKilled(path, 1 + ((round * 7) % 23))) {
      const [subject = '', version = ''] = line.split(' ')
      committed.set(subject, Number(version))
    }
    await using database = await SqliteDatabase.open(path)
    const audit = new AuditLog(database, 'default')
    const subjects: string[] = []
    checkpoint = await verifyAuditLog(
      {
        tree: () => audit.tree(),
        leaves: (from, limit) => audit.leaves(from, limit),
        proveConsistency: (older, newer) => audit.proveConsistency(older, newer),
      },
      checkpoint,
      (leaf) => subjects.push(JSON.parse(leaf).subject),
    )
    const sealing = await Sealing.open(database, new LocalKeyWrapper(new Uint8Array(32)), new Date())
    const resources = new ResourceStore({ database, sealing, tenant: 'default' })
    for (const [subject, version] of committed) {
      const found = await resources.find(subject)
      t.true((found?.version ?? 0) >= version, `round ${round}: ${subject} version ${version}`)
      t.is(found?.content.byteLength, found?.sizeBytes)
      t.true(subjects.includes(`${subject} ${found?.version}`), 'resource and audit entry are written both or neither')
    }
  }
  t.log(`${KILLS} kills, ${checkpoint?.size ?? 0} audit entries, ${committed.size} resources`)
})
