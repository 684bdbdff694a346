/** The key that seals the verifier's store: from a file, a token, the environment, or made beside the store. */
import { existsSync } from 'node:fs'
import { createStoreKey, type KeyWrapper, LocalKeyWrapper, parseStoreKey } from '#attestation/store/key-wrapper'
import { isPkcs11Uri, parsePkcs11Uri } from '#attestation/store/pkcs11-uri'
import type { Invocation, OptionSpec } from './command.ts'
import { createUserFiles, readUserFile } from './files.ts'

/** 64 hexadecimal digits; for secret stores that hand out environments. */
export const STORE_KEY_VARIABLE = 'CAISSON_STORE_KEY'

export const STORE_KEY_OPTION: OptionSpec = {
  type: 'string',
  placeholder: 'FILE|URI',
  help: `key that seals the store’s secrets, a file or pkcs11:…; default: $${STORE_KEY_VARIABLE}, else store.key in the state directory`,
}

/** A file with 64 hexadecimal digits, or the PKCS #11 URI of a key that stays in a token. */
export async function keyWrapperOf(place: string): Promise<KeyWrapper> {
  if (!isPkcs11Uri(place)) return new LocalKeyWrapper(parseStoreKey(readUserFile(place, 'store key').toString('utf8')))
  const { Pkcs11KeyWrapper } = await import('#attestation/store/pkcs11-key-wrapper') // loads native code
  return new Pkcs11KeyWrapper(parsePkcs11Uri(place))
}

/** @throws MalformedError ERR_STORE_KEY_MALFORMED, ERR_PKCS11_URI, UsageError ERR_FILE_UNREADABLE */
export async function storeKeyOf(invocation: Invocation, state: string): Promise<Uint8Array | KeyWrapper> {
  const file = invocation.string('store-key')
  if (file !== undefined) return await keyWrapperOf(file)
  const variable = process.env[STORE_KEY_VARIABLE]
  if (variable !== undefined) {
    delete process.env[STORE_KEY_VARIABLE] // child processes have no use for it
    return parseStoreKey(variable)
  }
  const own = `${state}/store.key`
  if (!existsSync(own)) createStoreKeyFile(own)
  return parseStoreKey(readUserFile(own, 'store key').toString('utf8'))
}

/** Text of a new key, in a file that was not there. Throws `UsageError` ERR_FILE_EXISTS, ERR_FILE_UNWRITABLE. */
export function createStoreKeyFile(path: string): string {
  const text = createStoreKey()
  createUserFiles([{ path, bytes: text, mode: 0o600 }], 'A store’s key is never overwritten: choose another name.')
  return text
}
