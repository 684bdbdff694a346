import { createReadStream, existsSync } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { restoreBackup, writeBackup } from '#attestation/store/backup'
import { openDatabase, openExistingDatabase } from '#attestation/store/open-database'
import { UsageError } from '#protocol/errors'
import type { CommandSpec, OptionSpec } from '../command.ts'

const STORE: Readonly<Record<string, OptionSpec>> = {
  store: { type: 'string', placeholder: 'FILE|URL', help: 'SQLite file or postgresql:// address' },
}

export const verifierBackup: CommandSpec = {
  path: 'verifier backup',
  summary:
    'Writes all that a verifier’s store holds to a file, while the verifier runs. Secrets stay sealed: keep the store’s key\nelsewhere, the backup is of no use without it. SQLite and PostgreSQL write the same file.',
  operands: 'FILE',
  minOperands: 1,
  maxOperands: 1,
  options: STORE,
  examples: ['caisson verifier backup verifier.backup --store verifier/verifier.db'],
  run: async (invocation) => {
    const target = invocation.operand(0)
    const temporary = `${target}.${process.pid}.new`
    await using database = await openExistingDatabase(invocation.required('store'))
    try {
      const file = await open(temporary, 'w', 0o600)
      let rows: number
      try {
        rows = await writeBackup(database, async (line) => void (await file.write(`${line}\n`)))
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(temporary, target)
      invocation.out.result({ file: target, rows }, `${rows} rows in ${target}`)
      return 0
    } finally {
      await rm(temporary, { force: true })
    }
  },
}

export const verifierRestore: CommandSpec = {
  path: 'verifier restore',
  summary:
    'Fills an empty store from a backup, all or nothing. One-time secrets are blocked, because guests may have got them\nafter the backup was made: store them again, or say that none did.',
  operands: 'FILE',
  minOperands: 1,
  maxOperands: 1,
  options: {
    ...STORE,
    'keep-one-time': { type: 'boolean', help: 'release one-time secrets that the backup knows as not yet released' },
  },
  examples: [
    'caisson verifier restore verifier.backup --store verifier/new.db',
    'caisson verifier restore verifier.backup --store postgresql://verifier@db.example/verifier',
  ],
  run: async (invocation) => {
    const source = invocation.operand(0)
    if (!existsSync(source))
      throw new UsageError('ERR_FILE_UNREADABLE', `backup ${JSON.stringify(source)} is not there`)
    await using database = await openDatabase(invocation.required('store'))
    const lines = createInterface({ input: createReadStream(source), crlfDelay: Number.POSITIVE_INFINITY })
    const { rows, blocked } = await restoreBackup(database, lines, { keepOneTime: invocation.flag('keep-one-time') })
    invocation.out.result(
      { rows, blockedOneTimeSecrets: blocked },
      `${rows} rows restored${blocked === 0 ? '' : `, ${blocked} one-time secrets blocked: store them again`}`,
    )
    return 0
  },
}
