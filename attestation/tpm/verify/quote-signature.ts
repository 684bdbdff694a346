/** Does this key's signature over TPMS_ATTEST hold? For each scheme that TPMs sign quotes with. */
import { type KeyObject, constants as openssl, verify } from 'node:crypto'
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { concatBytes } from '#protocol/encoding'
import { derSignature } from '../../x509/ecdsa-value.ts'
import { COORDINATE_BYTES, HASH_BYTES, TPM_ALG } from '../parse/algorithms.ts'
import type { QuoteAttest } from '../parse/attest.ts'
import type { KeyScheme } from '../parse/public-area.ts'
import type { QuoteKey } from '../parse/quote-key.ts'
import type { QuoteSignature, TpmSignature } from '../parse/signature.ts'
import { pad } from './public-key.ts'

export type QuoteScheme = 'rsassa' | 'rsapss' | 'ecdsa'

/** What the signature turned out to be made with. */
export interface SignedWith {
  readonly scheme: QuoteScheme
  readonly hash: HashAlgorithm
}

const FIELD_BYTES: Readonly<Record<string, number>> = { prime256v1: 32, secp384r1: 48, secp521r1: 66 }
const HASHES: readonly HashAlgorithm[] = ['sha1', 'sha256', 'sha384', 'sha512']

/**
 * Undefined when it does not hold. A bare one of ECDSA is DER, or R ‖ S where that is its length. A bare signature says nothing of its hash: that is the hash of the quote's PCR digest,
 * which TPMs make with the signature's (TPM 2.0 part 3, section 18.4).
 */
export function quoteSignedWith(
  key: QuoteKey,
  message: { readonly bytes: Uint8Array; readonly attest: QuoteAttest },
  signature: QuoteSignature,
): SignedWith | undefined {
  if (signature.form === 'tss') {
    return tpmSignatureHolds(key, message.bytes, signature.tpm) ? signature.tpm : undefined
  }
  const hash = HASHES.find((name) => HASH_BYTES[name] === message.attest.pcrDigest.length)
  if (hash === undefined) return undefined
  const schemes: readonly QuoteScheme[] = key.key.asymmetricKeyType === 'ec' ? ['ecdsa'] : ['rsassa', 'rsapss']
  const encoding = signature.bytes.length === 2 * fieldBytes(key.key) ? 'ieee-p1363' : 'der'
  const scheme = schemes.find(
    (candidate) =>
      allowed(key.area?.scheme, { scheme: candidate, hash }) &&
      holds(key.key, message.bytes, { scheme: candidate, hash, bytes: signature.bytes, encoding }),
  )
  return scheme === undefined ? undefined : { scheme, hash }
}

/** Whether a TPMT_SIGNATURE holds, and is of the scheme that the key is bound to. */
export function tpmSignatureHolds(
  key: Pick<QuoteKey, 'key' | 'area'>,
  message: Uint8Array,
  signature: TpmSignature,
): boolean {
  if (!allowed(key.area?.scheme, signature)) return false
  const { scheme, hash } = signature
  if (scheme !== 'ecdsa') return holds(key.key, message, { scheme, hash, bytes: signature.signature, encoding: 'der' })
  const field = key.area?.type === 'ecc' ? COORDINATE_BYTES[key.area.curve] : fieldBytes(key.key)
  if (signature.r.length > field || signature.s.length > field) return false
  const bytes = concatBytes(pad(signature.r, field), pad(signature.s, field))
  return holds(key.key, message, { scheme, hash, bytes, encoding: 'ieee-p1363' })
}

/** Of a coordinate; 0 for RSA. To ask a key for it costs as much as its signature. */
function fieldBytes(key: KeyObject): number {
  return FIELD_BYTES[key.asymmetricKeyDetails?.namedCurve ?? ''] ?? 0
}

function holds(
  key: KeyObject,
  message: Uint8Array,
  how: SignedWith & { readonly bytes: Uint8Array; readonly encoding: 'der' | 'ieee-p1363' },
): boolean {
  const { scheme, hash, bytes, encoding } = how
  if (key.asymmetricKeyType !== (scheme === 'ecdsa' ? 'ec' : 'rsa')) return false
  if (scheme === 'ecdsa') return verify(hash, message, key, encoding === 'der' ? bytes : derSignature(bytes))
  const padding = scheme === 'rsassa' ? openssl.RSA_PKCS1_PADDING : openssl.RSA_PKCS1_PSS_PADDING
  // TPM 2.0 part 1, B.7: the salt is as long as fits, or as the digest where FIPS 186 is followed.
  return verify(hash, message, { key, padding, saltLength: openssl.RSA_PSS_SALTLEN_AUTO }, bytes)
}

const SCHEME_IDS: Readonly<Record<QuoteScheme, number>> = {
  rsassa: TPM_ALG.RSASSA,
  rsapss: TPM_ALG.RSAPSS,
  ecdsa: TPM_ALG.ECDSA,
}

function allowed(bound: KeyScheme | null | undefined, used: SignedWith): boolean {
  if (bound === null || bound === undefined) return true
  return bound.algorithm === SCHEME_IDS[used.scheme] && bound.hash === used.hash
}
