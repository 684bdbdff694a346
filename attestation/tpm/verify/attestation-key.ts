/**
 * Which keys may attest. TPM2_ActivateCredential proves that a key with this name is loaded in the TPM, and no more: only
 * the attributes, which the name covers, say that the TPM made it, that it never leaves, and that it signs nothing from
 * outside that looks like a quote (TPM 2.0 part 1, section 31.4).
 */

import { equalBytes, toHex } from '#protocol/encoding'
import { UnverifiedError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import { TPM_ALG } from '../parse/algorithms.ts'
import { type EccPublicArea, OBJECT_ATTRIBUTE, objectName, parsePublicArea } from '../parse/public-area.ts'

const REQUIRED =
  OBJECT_ATTRIBUTE.fixedTPM |
  OBJECT_ATTRIBUTE.fixedParent |
  OBJECT_ATTRIBUTE.sensitiveDataOrigin |
  OBJECT_ATTRIBUTE.userWithAuth |
  OBJECT_ATTRIBUTE.restricted |
  OBJECT_ATTRIBUTE.sign
const ALLOWED = REQUIRED | OBJECT_ATTRIBUTE.noDA

declare const verified: unique symbol

/** A public area that passed `verifyAttestationKey`. Its residence in a TPM is proved by the credential alone. */
export interface AttestationKey {
  readonly [verified]: true
  readonly publicArea: EccPublicArea
  /** Computed from the bytes as received. */
  readonly name: Uint8Array
  readonly encoded: Uint8Array
}

/** Throws `UnverifiedError` ERR_AK_UNSUITABLE, or `MalformedError` where the bytes are no TPMT_PUBLIC. */
export function verifyAttestationKey(encoded: Uint8Array): AttestationKey {
  const area = parsePublicArea(encoded)
  const refuse = (why: string): never => {
    throw new UnverifiedError('ERR_AK_UNSUITABLE', `attestation key: ${why}`, {
      hint: 'The key must be made inside the TPM as a restricted ECDSA P-256 signing key with SHA-256.',
    })
  }
  if ((area.attributes & REQUIRED) !== REQUIRED || (area.attributes & ~ALLOWED) !== 0) {
    refuse(`attributes 0x${(area.attributes >>> 0).toString(16)}, needed 0x${REQUIRED.toString(16)} (noDA is optional)`)
  }
  if (area.type !== 'ecc' || area.curve !== 'P-256') return refuse('not an ECC P-256 key')
  if (area.scheme?.algorithm !== TPM_ALG.ECDSA || area.scheme.hash !== 'sha256') refuse('scheme is not ECDSA, SHA-256')
  if (area.nameAlgorithm !== 'sha256') refuse(`named by ${area.nameAlgorithm}, SHA-256 is needed`)
  if (area.authPolicy.length !== 0) refuse('has an authorization policy')
  if (area.symmetric !== null || area.kdf !== null) refuse('has a symmetric algorithm or a key derivation')
  if (area.x.length > 32 || area.y.length > 32) refuse('coordinates longer than the field')
  return { publicArea: area, name: objectName(nodeCrypto, encoded), encoded: encoded.slice() } as AttestationKey
}

/** Throws `UnverifiedError` ERR_AK_CHANGED unless both are the same key. */
export function checkSameKey(requested: AttestationKey, answering: Uint8Array): void {
  if (equalBytes(requested.encoded, answering)) return
  throw new UnverifiedError(
    'ERR_AK_CHANGED',
    `the answer names another attestation key than the request (${toHex(requested.name)})`,
  )
}
