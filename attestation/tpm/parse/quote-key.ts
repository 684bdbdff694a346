/**
 * The public key that signs quotes, in the forms in which tools hand it out: TPMT_PUBLIC, TPM2B_PUBLIC ("tss" of
 * tpm2-tools), SubjectPublicKeyInfo in DER or PEM, PKCS#1 in PEM, JSON Web Key.
 */
import { createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto'
import { MalformedError } from '#protocol/errors'
import { subjectPublicKeyInfo } from '../verify/public-key.ts'
import { type PublicArea, parsePublicArea } from './public-area.ts'
import { unwrapTpm2b } from './tpm2b.ts'

export interface QuoteKey {
  readonly key: KeyObject
  /** What the TPM says of the key, when it was handed over as the TPM has it. */
  readonly area: PublicArea | undefined
  /** TPMT_PUBLIC as received: the object's name is its hash. */
  readonly encodedArea: Uint8Array | undefined
}

const DER_SEQUENCE = 0x30
const MIN_RSA_BITS = 1024
const MAX_RSA_BITS = 4096
const CURVES: readonly string[] = ['prime256v1', 'secp384r1', 'secp521r1']

/** Throws `MalformedError` ERR_TPM_PUBLIC, or the codes of `parsePublicArea`. */
export function parseQuoteKey(encoded: Uint8Array): QuoteKey {
  const first = encoded[0]
  if (first === DER_SEQUENCE)
    return plainKey(() => createPublicKey({ key: Buffer.from(encoded), format: 'der', type: 'spki' }))
  if (first === 0x2d) {
    // "-----BEGIN"
    return plainKey(() => createPublicKey({ key: Buffer.from(encoded), format: 'pem' }))
  }
  const encodedArea = unwrapTpm2b(encoded)
  const area = parsePublicArea(encodedArea)
  const der = Buffer.from(subjectPublicKeyInfo(area))
  const { key } = plainKey(() => createPublicKey({ key: der, format: 'der', type: 'spki' }))
  return { key, area, encodedArea }
}

/** RFC 7517. Throws `MalformedError` ERR_TPM_PUBLIC. */
export function quoteKeyOfJwk(jwk: JsonWebKey): QuoteKey {
  return plainKey(() => createPublicKey({ key: jwk, format: 'jwk' }))
}

/** A key that a certificate names. Throws `MalformedError` ERR_TPM_PUBLIC for kinds that TPMs do not sign quotes with. */
export function quoteKeyOf(key: KeyObject): QuoteKey {
  return plainKey(() => key)
}

function plainKey(read: () => KeyObject): QuoteKey {
  let key: KeyObject
  try {
    key = read()
  } catch (cause) {
    throw new MalformedError('ERR_TPM_PUBLIC', 'attestation key: neither a TPM public area nor a public key', { cause })
  }
  const { modulusLength = 0, namedCurve = '' } = key.asymmetricKeyDetails ?? {}
  const known =
    key.type === 'public' &&
    ((key.asymmetricKeyType === 'rsa' && modulusLength >= MIN_RSA_BITS && modulusLength <= MAX_RSA_BITS) ||
      (key.asymmetricKeyType === 'ec' && CURVES.includes(namedCurve)))
  if (!known) {
    throw new MalformedError(
      'ERR_TPM_PUBLIC',
      `attestation key: ${key.asymmetricKeyType} ${namedCurve || modulusLength} is not one that TPMs quote with`,
    )
  }
  return { key, area: undefined, encodedArea: undefined }
}
