import { type KeyWrapper, LocalKeyWrapper, parseStoreKey } from '#attestation/store/key-wrapper'
import { openExistingDatabase } from '#attestation/store/open-database'
import { isPkcs11Uri, parsePkcs11Uri } from '#attestation/store/pkcs11-uri'
import { rewrap } from '#attestation/store/sealing'
import type { CommandSpec } from '../command.ts'
import { createStoreKeyFile, keyWrapperOf } from '../store-key.ts'

export const verifierRekey: CommandSpec = {
  path: 'verifier rekey',
  summary:
    'Gives the verifier’s store another key. Its data keys are wrapped anew, secrets are not touched; running verifiers go\non, and the old key opens nothing any more, except older backups.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    store: { type: 'string', placeholder: 'FILE|URL', help: 'SQLite file or postgresql:// address' },
    'store-key': { type: 'string', placeholder: 'FILE|URI', help: 'present key, a file or pkcs11:…' },
    'new-key': {
      type: 'string',
      placeholder: 'FILE|URI',
      help: 'where to make the new key: a file that is not there, or pkcs11:… for a key that stays in a token',
    },
  },
  examples: [
    'caisson verifier rekey --store verifier/verifier.db --store-key verifier/store.key --new-key verifier/store.key.new',
  ],
  run: async (invocation) => {
    const old = await keyWrapperOf(invocation.required('store-key'))
    const target = invocation.required('new-key')
    await using database = await openExistingDatabase(invocation.required('store'))
    // The new key is on the disk before anything needs it: a crash leaves a key too many, never one too few.
    const keys = await rewrap(database, old, () => makeKey(target))
    invocation.out.result({ dataKeys: keys, newKey: target }, `${keys} data keys wrapped by ${target}`)
    return 0
  },
}

async function makeKey(target: string): Promise<KeyWrapper> {
  if (!isPkcs11Uri(target)) return new LocalKeyWrapper(parseStoreKey(createStoreKeyFile(target)))
  const { Pkcs11KeyWrapper } = await import('#attestation/store/pkcs11-key-wrapper')
  const wrapper = new Pkcs11KeyWrapper(parsePkcs11Uri(target))
  await wrapper.generate()
  return wrapper
}
