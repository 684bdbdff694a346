/**
 * The guest's key pair for answers of the verifier, and opening what was encrypted to it (JWE, RFC 7516).
 *
 * The private key is made by WebCrypto as not extractable and lives as long as the attestation it was bound to.
 */
import { type CryptoKey, exportJWK, flattenedDecrypt } from 'jose'
import { UnverifiedError } from '#protocol/errors'
import type { TeePublicKey } from '#protocol/kbs-messages'
import { answerError, jsonOf } from './verifier-http.ts'

export interface TeeKeyPair {
  readonly publicKey: TeePublicKey
  readonly privateKey: CryptoKey
}

export async function createTeeKeyPair(): Promise<TeeKeyPair> {
  const pair = await crypto.subtle.generateKey({ name: 'ECDH', namedCurve: 'P-256' }, false, ['deriveBits'])
  const { x = '', y = '' } = await exportJWK(pair.publicKey)
  return {
    publicKey: { kty: 'EC', crv: 'P-256', alg: 'ECDH-ES+A256KW', x, y },
    privateKey: pair.privateKey,
  }
}

const MEMBERS = ['protected', 'encrypted_key', 'iv', 'ciphertext', 'tag'] as const

/**
 * @throws MalformedError ERR_VERIFIER_ANSWER when the body is no JWE
 * @throws UnverifiedError ERR_RESOURCE_SEAL when it was not encrypted to this key, or changed on the way
 */
export async function openSealedResource(body: Uint8Array, key: CryptoKey): Promise<Uint8Array> {
  const value = jsonOf(body)
  const [protectedHeader, encryptedKey, iv, ciphertext, tag] = MEMBERS.map((name) => {
    const member: unknown =
      typeof value === 'object' && value !== null ? Object.getOwnPropertyDescriptor(value, name)?.value : undefined
    if (typeof member !== 'string') throw answerError(`a resource without ${name}`)
    return member
  })
  const jwe = {
    protected: protectedHeader ?? '',
    encrypted_key: encryptedKey ?? '',
    iv,
    ciphertext: ciphertext ?? '',
    tag,
  }
  try {
    const { plaintext } = await flattenedDecrypt(
      { ...jwe, iv: iv ?? '', tag: tag ?? '' },
      key,
      // Only what our key is for; the header does not get to choose anything else.
      { keyManagementAlgorithms: ['ECDH-ES+A256KW'], contentEncryptionAlgorithms: ['A256GCM'] },
    )
    return plaintext
  } catch (cause) {
    throw new UnverifiedError('ERR_RESOURCE_SEAL', "the resource is not encrypted to this guest's key", { cause })
  }
}
