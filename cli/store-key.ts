/** The key that seals the verifier's store: from a file, from the environment, or made beside the store. */
import { existsSync } from 'node:fs'
import { createStoreKey, parseStoreKey } from '#attestation/store/key-wrapper'
import type { Invocation, OptionSpec } from './command.ts'
import { readUserFile, writeUserFile } from './files.ts'

/** 64 hexadecimal digits; for secret stores that hand out environments. */
export const STORE_KEY_VARIABLE = 'CAISSON_STORE_KEY'

export const STORE_KEY_OPTION: OptionSpec = {
  type: 'string',
  placeholder: 'FILE',
  help: `key that seals the store’s secrets; default: $${STORE_KEY_VARIABLE}, else store.key in the state directory`,
}

/** @throws MalformedError ERR_STORE_KEY_MALFORMED, UsageError ERR_FILE_UNREADABLE */
export function storeKeyOf(invocation: Invocation, state: string): Uint8Array {
  const file = invocation.string('store-key')
  if (file !== undefined) return parseStoreKey(readUserFile(file, 'store key').toString('utf8'))
  const variable = process.env[STORE_KEY_VARIABLE]
  if (variable !== undefined) {
    delete process.env[STORE_KEY_VARIABLE] // child processes have no use for it
    return parseStoreKey(variable)
  }
  const own = `${state}/store.key`
  if (!existsSync(own)) writeUserFile(own, createStoreKey(), 0o600)
  return parseStoreKey(readUserFile(own, 'store key').toString('utf8'))
}
