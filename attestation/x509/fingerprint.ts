/** Names for what was parsed, so that what was verified before is found again by its bytes. */
import { createHash } from 'node:crypto'

const known = new WeakMap<object, string>()

/** SHA-256 of the DER, base64; computed once for each parsed certificate or list, whose bytes never change. */
export function fingerprint(item: { readonly der: Uint8Array }): string {
  const before = known.get(item)
  if (before !== undefined) return before
  const digest = createHash('sha256').update(item.der).digest('base64')
  known.set(item, digest)
  return digest
}
