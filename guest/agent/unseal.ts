/**
 * Sealed secrets, from their text to what they stand for. Trusted is the public key that the policy names and the verifier
 * releases; what a sealed secret says of its own key must agree with that, and decides nothing.
 *
 * Only what the verifier keeps can be unsealed (type `vault`, provider `kbs`): the key services of clouds, which envelopes
 * need, are not the tenant's verifier, and a guest asks nobody else.
 */
import { compactVerify, importJWK, type JWK } from 'jose'
import { denied } from '#policies/container-checks'
import { UnavailableError, UnverifiedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import { parseSealedSecret, type SealedSecret } from '#protocol/sealed-secret'

export interface UnsealInput {
  readonly sealed: string
  /** `repository/type/tag` of the public key, as the policy names it. */
  readonly key: string
  /** Of the policy, for denials. */
  readonly field: string
  /** A resource of the verifier. */
  readonly resource: (path: string) => Promise<Uint8Array>
}

const MAX_KEY_CHARS = 16 * 1024
const RESOURCE_URI = /^kbs:\/\/\/([\w-][\w.-]*(?:\/[\w-][\w.-]*){2})$/

/**
 * @throws MalformedError ERR_SEALED_SECRET, ERR_SEALED_SECRET_KEY
 * @throws DeniedError ERR_POLICY_DENIED when it names another key
 * @throws UnverifiedError ERR_SEALED_SECRET_SIGNATURE
 * @throws UnavailableError ERR_SEALED_SECRET_PROVIDER; what `resource` throws
 */
export async function unseal({ sealed, key, field, resource }: UnsealInput): Promise<Uint8Array> {
  const secret = parseSealedSecret(sealed)
  const expected = `kbs:///${key}`
  if (secret.keyId !== expected) throw denied(field, `a sealed secret signed with ${expected}`, secret.keyId)
  await verifySignature(secret, parseVerificationKey(await resource(key)))
  return resource(resourceOf(secret))
}

async function verifySignature(secret: SealedSecret, key: JWK): Promise<void> {
  try {
    // The header does not get to choose anything else.
    await compactVerify(secret.jws, await importJWK(key, 'ES256'), { algorithms: ['ES256'] })
  } catch (cause) {
    throw new UnverifiedError('ERR_SEALED_SECRET_SIGNATURE', `the sealed secret is not signed by ${secret.keyId}`, {
      hint: 'Seal it again with the private half of the key that the policy names.',
      cause,
    })
  }
}

/** The public members of a JSON Web Key (RFC 7517) on P-256. Throws `MalformedError` ERR_SEALED_SECRET_KEY. */
export function parseVerificationKey(bytes: Uint8Array): JWK {
  const text = new TextDecoder().decode(bytes)
  const fields = JsonFields.parse(text, 'key of sealed secrets', {
    code: 'ERR_SEALED_SECRET_KEY',
    maxChars: MAX_KEY_CHARS,
  })
  const kty = fields.oneOf('kty', ['EC'])
  const crv = fields.oneOf('crv', ['P-256'])
  return { kty, crv, x: fields.string('x', 64), y: fields.string('y', 64) }
}

function resourceOf({ content }: SealedSecret): string {
  const path = content.type === 'vault' && content.provider === 'kbs' ? RESOURCE_URI.exec(content.name)?.[1] : undefined
  if (path !== undefined) return path
  const found = content.type === 'vault' ? `${content.provider} ${content.name}` : `an envelope of ${content.provider}`
  throw new UnavailableError('ERR_SEALED_SECRET_PROVIDER', `no provider here unseals ${found}`, {
    hint: 'Seal it as type vault, provider kbs, with the name kbs:///repository/type/tag.',
  })
}
