import { createStoreKey, LocalKeyWrapper, parseStoreKey } from '#attestation/store/key-wrapper'
import { rewrap } from '#attestation/store/sealing'
import { openDatabase } from '#attestation/verifier/verifier'
import type { CommandSpec } from '../command.ts'
import { readUserFile, writeUserFile } from '../files.ts'

export const verifierRekey: CommandSpec = {
  path: 'verifier rekey',
  summary:
    'Gives the verifier’s store another key. Its data keys are wrapped anew, secrets are not touched; running verifiers go\non, and the old key opens nothing any more, except older backups.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    store: { type: 'string', placeholder: 'FILE|URL', help: 'SQLite file or postgresql:// address' },
    'store-key': { type: 'string', placeholder: 'FILE', help: 'present key' },
    'new-key': { type: 'string', placeholder: 'FILE', help: 'where to write the new key' },
  },
  examples: [
    'caisson verifier rekey --store verifier/verifier.db --store-key verifier/store.key --new-key verifier/store.key.new',
  ],
  run: async (invocation) => {
    const old = new LocalKeyWrapper(
      parseStoreKey(readUserFile(invocation.required('store-key'), 'store key').toString('utf8')),
    )
    const target = invocation.required('new-key')
    const text = createStoreKey()
    // The new key is on disk before anything needs it: a crash leaves a key too many, never one too few.
    writeUserFile(target, text, 0o600)
    await using database = await openDatabase(invocation.required('store'))
    const keys = await rewrap(database, old, new LocalKeyWrapper(parseStoreKey(text)))
    invocation.out.result({ dataKeys: keys, newKey: target }, `${keys} data keys wrapped by ${target}`)
    return 0
  },
}
