/**
 * Signs attestation tokens (JWT, ES256) and publishes the keys that verify them.
 *
 * A replaced signing key stays in the published set until the last token it signed has expired, so relying parties that
 * fetch the set once per token lifetime never meet an unknown key.
 */
import { createPrivateKey, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { type JSONWebKeySet, type JWK, SignJWT } from 'jose'
import { toHex } from '#protocol/encoding'
import type { Database } from './database.ts'
import { KeyRing, type StoredKey } from './key-ring.ts'

/** `time+jwt` marks the verifier's signed time, so that it can never pass for an attestation token. */
export type SignedType = 'JWT' | 'time+jwt'

export class TokenIssuer {
  readonly #ring: KeyRing
  #loaded: { readonly kid: string; readonly privateKey: KeyObject } | undefined

  constructor(options: { database: Database; rotateAfterMs: number; tokenLifetimeMs: number; now: () => Date }) {
    this.#ring = new KeyRing({
      database: options.database,
      kind: 'token',
      rotateAfterMs: options.rotateAfterMs,
      keepMs: options.tokenLifetimeMs,
      now: options.now,
      generate: () => {
        const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
        return { kid: toHex(randomBytes(16)), material: JSON.stringify(privateKey.export({ format: 'jwk' })) }
      },
    })
  }

  async sign(claims: object, type: SignedType): Promise<string> {
    const key = this.#ring.current()
    return await new SignJWT({ ...claims })
      .setProtectedHeader({ alg: 'ES256', typ: type, kid: key.kid, jwk: publicJwk(key) })
      .sign(this.#privateKey(key))
  }

  /** JWK set (RFC 7517 section 5), newest key first; never empty. */
  publishedKeys(): JSONWebKeySet {
    this.#ring.current()
    return { keys: this.#ring.all().map((key) => ({ ...publicJwk(key), kid: key.kid, alg: 'ES256', use: 'sig' })) }
  }

  /** Replaces the signing key now. Tokens of the old one stay valid until they expire. */
  rotate(): void {
    this.#ring.rotate()
  }

  #privateKey(key: StoredKey): KeyObject {
    if (this.#loaded?.kid !== key.kid) {
      this.#loaded = { kid: key.kid, privateKey: createPrivateKey({ key: JSON.parse(key.material), format: 'jwk' }) }
    }
    return this.#loaded.privateKey
  }
}

function publicJwk(key: StoredKey): JWK {
  const { kty, crv, x, y }: { kty: string; crv: string; x: string; y: string } = JSON.parse(key.material)
  return { kty, crv, x, y }
}
