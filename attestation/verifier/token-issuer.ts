/**
 * Signs attestation tokens (JWT, ES256) and publishes the keys that verify them.
 *
 * A replaced signing key stays in the published set until the last token it signed has expired, so relying parties that
 * fetch the set once per token lifetime never meet an unknown key.
 */
import { createPrivateKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import type { JSONWebKeySet, JWK } from 'jose'
import { toHex } from '#protocol/encoding'
import { KeyRing, type StoredKey } from '../store/key-ring.ts'
import { rememberSigned } from '../token/verify-token.ts'
import { rawSignature } from '../x509/ecdsa-value.ts'
import type { RingPlace } from './session-seal.ts'

/** `time+jwt` marks the verifier's signed time, so that it can never pass for an attestation token. */
export type SignedType = 'JWT' | 'time+jwt'

/** P-256. R ‖ S is what a JWS has (RFC 7518 section 3.4). */
const COORDINATE_BYTES = 32

export class TokenIssuer {
  readonly #ring: KeyRing
  #loaded: LoadedKey | undefined
  /** The same object as long as the same keys are published: whoever verifies with it imports them once. */
  #published: JSONWebKeySet = { keys: [] }

  constructor(options: RingPlace & { tokenLifetimeMs: number }) {
    this.#ring = new KeyRing({
      ...options,
      kind: 'token',
      keepMs: options.tokenLifetimeMs,
      generate: () => {
        const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
        return { kid: toHex(randomBytes(16)), material: JSON.stringify(privateKey.export({ format: 'jwk' })) }
      },
    })
  }

  async sign(claims: object, type: SignedType): Promise<string> {
    const key = await this.#ring.current()
    const { privateKey, headers } = this.#load(key)
    // JWS compact serialisation (RFC 7515 section 7.1). In place: one signature is faster than the way to a thread and back.
    const signed = `${headers[type]}.${encoded(claims)}`
    const signature = rawSignature(sign('sha256', Buffer.from(signed, 'latin1'), privateKey), COORDINATE_BYTES)
    const token = `${signed}.${Buffer.from(signature).toString('base64url')}`
    const published = await this.publishedKeys()
    if (published.keys.some(({ kid }) => kid === key.kid)) rememberSigned(published, token)
    return token
  }

  /**
   * JWK set (RFC 7517 section 5), newest key first; never empty.
   *
   * @param options.fresh with what another process made a moment ago
   */
  async publishedKeys({ fresh = false }: { fresh?: boolean } = {}): Promise<JSONWebKeySet> {
    await this.#ring.current()
    const keys = fresh ? await this.#ring.refreshed() : await this.#ring.all()
    const before = this.#published.keys
    if (keys.length === before.length && keys.every(({ kid }, index) => kid === before[index]?.kid)) {
      return this.#published
    }
    this.#published = { keys: keys.map((key) => ({ ...publicJwk(key), kid: key.kid, alg: 'ES256', use: 'sig' })) }
    return this.#published
  }

  /** Replaces the signing key now. Tokens of the old one stay valid until they expire. */
  async rotate(): Promise<void> {
    await this.#ring.rotate()
  }

  #load(key: StoredKey): LoadedKey {
    if (this.#loaded?.kid === key.kid) return this.#loaded
    const header = (typ: SignedType): string => encoded({ alg: 'ES256', typ, kid: key.kid, jwk: publicJwk(key) })
    this.#loaded = {
      kid: key.kid,
      privateKey: createPrivateKey({ key: JSON.parse(key.material), format: 'jwk' }),
      headers: { JWT: header('JWT'), 'time+jwt': header('time+jwt') },
    }
    return this.#loaded
  }
}

/** What each token that a key signs has in common with the others of that key. */
interface LoadedKey {
  readonly kid: string
  readonly privateKey: KeyObject
  /** Encoded. */
  readonly headers: Readonly<Record<SignedType, string>>
}

function encoded(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString('base64url')
}

function publicJwk(key: StoredKey): JWK {
  const { kty, crv, x, y }: { kty: string; crv: string; x: string; y: string } = JSON.parse(key.material)
  return { kty, crv, x, y }
}
