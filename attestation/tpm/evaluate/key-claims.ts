/** What is said of the key that signs quotes, by name: docs/claims.md. */
import { createHash } from 'node:crypto'
import type { Claims } from '../../evidence/verdict.ts'
import type { QuoteKey } from '../parse/quote-key.ts'

/** Fingerprint of the key's SubjectPublicKeyInfo, SHA-256. */
export function keyClaims({ key, area }: QuoteKey): Claims {
  const spki = key.export({ format: 'der', type: 'spki' })
  const kind =
    key.asymmetricKeyType === 'ec'
      ? key.asymmetricKeyDetails?.namedCurve
      : `rsa-${key.asymmetricKeyDetails?.modulusLength}`
  return {
    ak: createHash('sha256').update(spki).digest('hex'),
    ak_type: kind ?? '',
    ...(area !== undefined && { ak_attributes: (area.attributes >>> 0).toString(16).padStart(8, '0') }),
  }
}
