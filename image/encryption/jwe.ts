/** Layer keys wrapped as JWE (RFC 7516), flattened or general, with the algorithms that ocicrypt uses. */
import {
  type CryptoKey,
  FlattenedEncrypt,
  type FlattenedJWE,
  flattenedDecrypt,
  GeneralEncrypt,
  type GeneralJWE,
  generalDecrypt,
  type KeyObject,
} from 'jose'
import { errorText, MalformedError, UnverifiedError } from '#protocol/errors'
import { asArray, asObject } from '../json/fields.ts'
import { type JsonObject, parseStrictJson } from '../json/strict-json.ts'

export type JweKey = CryptoKey | KeyObject

export interface JweRecipient {
  readonly key: JweKey
  readonly algorithm: JweAlgorithm
}

export type JweAlgorithm = (typeof ALGORITHMS)[number]

const ALGORITHMS = ['RSA-OAEP', 'RSA-OAEP-256', 'ECDH-ES+A128KW', 'ECDH-ES+A192KW', 'ECDH-ES+A256KW'] as const
const OPTIONS = { keyManagementAlgorithms: [...ALGORITHMS], contentEncryptionAlgorithms: ['A256GCM'] }
const MAX_RECIPIENTS = 64

/** Either form, checked as far as reading it needs no key. Throws `MalformedError` ERR_LAYER_JWE or ERR_JSON. */
export function parseJwe(bytes: Uint8Array, what: string): FlattenedJWE | GeneralJWE {
  const jwe = asObject(parseStrictJson(bytes, what), what)
  for (const name of ['protected', 'iv', 'ciphertext', 'tag', 'aad', 'encrypted_key']) {
    if (jwe[name] !== undefined && typeof jwe[name] !== 'string') throw malformed(what, `${name} is not a string`)
  }
  if (typeof jwe.ciphertext !== 'string') throw malformed(what, 'it has no ciphertext')
  if (jwe.recipients === undefined) return copy(jwe) as unknown as FlattenedJWE
  if (jwe.encrypted_key !== undefined || jwe.header !== undefined) throw malformed(what, 'it is of both forms at once')
  for (const [index, recipient] of asArray(jwe.recipients, `${what}: recipients`, MAX_RECIPIENTS).entries()) {
    asObject(recipient, `${what}: recipients[${index}]`)
  }
  return copy(jwe) as unknown as GeneralJWE
}

/** Throws `UnverifiedError` ERR_LAYER_KEY when none of the keys opens it. */
export async function openJwe(bytes: Uint8Array, keys: readonly JweKey[], what: string): Promise<Uint8Array> {
  const jwe = parseJwe(bytes, what)
  let failure: unknown
  for (const key of keys) {
    try {
      const { plaintext } =
        'recipients' in jwe
          ? await generalDecrypt(jwe, key, OPTIONS)
          : await flattenedDecrypt(jwe as FlattenedJWE, key, OPTIONS)
      return plaintext
    } catch (error) {
      failure ??= error
    }
  }
  throw new UnverifiedError('ERR_LAYER_KEY', `${what}: no key that was given opens its JWE: ${errorText(failure)}`, {
    cause: failure,
    hint: 'Give the private key of a recipient the image was encrypted for.',
  })
}

/** Flattened for one recipient, general for several, as ocicrypt does. */
export async function sealJwe(plain: Uint8Array, recipients: readonly JweRecipient[]): Promise<Uint8Array> {
  const [first, ...more] = recipients
  if (first === undefined) throw new TypeError('a JWE needs a recipient')
  const jwe =
    more.length === 0
      ? await new FlattenedEncrypt(plain)
          .setProtectedHeader({ alg: first.algorithm, enc: 'A256GCM' })
          .encrypt(first.key)
      : await sealGeneral(plain, recipients)
  return new TextEncoder().encode(JSON.stringify(jwe))
}

function sealGeneral(plain: Uint8Array, recipients: readonly JweRecipient[]): Promise<GeneralJWE> {
  const sealing = new GeneralEncrypt(plain).setProtectedHeader({ enc: 'A256GCM' })
  for (const { key, algorithm } of recipients) sealing.addRecipient(key).setUnprotectedHeader({ alg: algorithm })
  return sealing.encrypt()
}

/** With the prototypes that the library expects. */
function copy(value: JsonObject): unknown {
  return JSON.parse(JSON.stringify(value))
}

function malformed(what: string, why: string): MalformedError {
  return new MalformedError('ERR_LAYER_JWE', `${what}: ${why}`)
}
