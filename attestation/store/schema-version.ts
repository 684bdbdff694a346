/** What a store's version says about whether this release may use it. */
import { UnavailableError, UsageError } from '#protocol/errors'
import { SCHEMA_VERSION } from './schema.ts'

/** @param version of the store; 0: it has no tables yet. @throws UnavailableError ERR_STORE_VERSION */
export function refuseNewer(version: number): void {
  if (version > SCHEMA_VERSION) throw otherVersion(version, 'Start the release that wrote it, or a newer one.')
}

/** For whoever must not change the store. @throws UnavailableError ERR_STORE_VERSION, UsageError ERR_STORE_ABSENT */
export function refuseOther(version: number): void {
  if (version === 0) throw absentStore()
  refuseNewer(version)
  if (version === SCHEMA_VERSION) return
  throw otherVersion(
    version,
    'Use the release that wrote it; or start the verifier of this release once, which takes the store over.',
  )
}

/** Not where: an address may hold a password. */
export function absentStore(): UsageError {
  return new UsageError('ERR_STORE_ABSENT', 'there is no store of a verifier', {
    hint: 'Name with --store the file or the database that `caisson verifier serve` uses; nothing was made or changed.',
  })
}

function otherVersion(version: number, hint: string): UnavailableError {
  const message = `the verifier's store has schema version ${version}, this release's is ${SCHEMA_VERSION}`
  return new UnavailableError('ERR_STORE_VERSION', message, { hint })
}
