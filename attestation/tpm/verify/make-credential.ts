/**
 * TPM2_MakeCredential in software: a secret that only the TPM with this EK gives back, and only for an object of this
 * name (TPM 2.0 part 1, section 24 and annexes B.10.4 and C.6.4).
 */
import {
  createCipheriv,
  createECDH,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  constants as openssl,
  publicEncrypt,
  randomBytes,
} from 'node:crypto'
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { concatBytes, toBase64Url } from '#protocol/encoding'
import { COORDINATE_BYTES, HASH_BYTES } from '../parse/algorithms.ts'
import { sized, u32 } from '../parse/marshal.ts'
import type { EccPublicArea } from '../parse/public-area.ts'
import type { VerifiedEk } from './ek-chain.ts'
import { pad, publicKeyOf } from './public-key.ts'

const IDENTITY = 'IDENTITY'
const OPENSSL_CURVES = { 'P-256': 'prime256v1', 'P-384': 'secp384r1', 'P-521': 'secp521r1' } as const

export interface Credential {
  /** Content of TPM2B_ID_OBJECT. */
  readonly credentialBlob: Uint8Array
  /** Content of TPM2B_ENCRYPTED_SECRET. */
  readonly encryptedSecret: Uint8Array
}

/** @param secret at most as long as a digest of the EK's name algorithm */
export function makeCredential(input: {
  readonly ek: VerifiedEk
  readonly akName: Uint8Array
  readonly secret: Uint8Array
}): Credential {
  const { template, publicArea, publicKey } = input.ek
  const hash = template.nameAlgorithm
  const seedAndSecret =
    publicArea.type === 'ecc'
      ? seedWith(publicArea, publicKey, generateKeyPairSync('ec', { namedCurve: OPENSSL_CURVES[publicArea.curve] }))
      : rsaSeed(randomBytes(HASH_BYTES[hash]), (seed) =>
          publicEncrypt(
            {
              key: publicKey,
              padding: openssl.RSA_PKCS1_OAEP_PADDING,
              oaepHash: hash,
              oaepLabel: Buffer.from(`${IDENTITY}\0`),
            },
            seed,
          ),
        )
  return {
    encryptedSecret: seedAndSecret.encryptedSecret,
    credentialBlob: sealCredential({
      hash,
      symmetricBits: template.symmetric.keyBits,
      seed: seedAndSecret.seed,
      akName: input.akName,
      secret: input.secret,
    }),
  }
}

interface Seed {
  readonly seed: Uint8Array
  readonly encryptedSecret: Uint8Array
}

function rsaSeed(seed: Uint8Array, encrypt: (seed: Uint8Array) => Uint8Array): Seed {
  return { seed, encryptedSecret: new Uint8Array(encrypt(seed)) }
}

/** With a key pair that is known: for answers that are known. */
export function eccSeed(ek: EccPublicArea, ephemeralPrivate: Uint8Array): Seed {
  const field = COORDINATE_BYTES[ek.curve]
  const ecdh = createECDH(OPENSSL_CURVES[ek.curve])
  ecdh.setPrivateKey(ephemeralPrivate)
  const point = new Uint8Array(ecdh.getPublicKey())
  const jwk = {
    kty: 'EC',
    crv: ek.curve,
    x: toBase64Url(point.slice(1, 1 + field)),
    y: toBase64Url(point.slice(1 + field)),
    d: toBase64Url(pad(ephemeralPrivate, field)),
  }
  const privateKey = createPrivateKey({ key: jwk, format: 'jwk' })
  return seedWith(ek, publicKeyOf(ek), { privateKey, publicKey: createPublicKey(privateKey) })
}

/**
 * @param ekKey the same key as `ek`
 * @param ephemeral used once. Key objects agree on a secret in half the time that `ECDH` takes.
 */
function seedWith(
  ek: EccPublicArea,
  ekKey: KeyObject,
  ephemeral: { readonly privateKey: KeyObject; readonly publicKey: KeyObject },
): Seed {
  const field = COORDINATE_BYTES[ek.curve]
  // An uncompressed point ends SubjectPublicKeyInfo (RFC 5480 section 2.2).
  const point = new Uint8Array(ephemeral.publicKey.export({ format: 'der', type: 'spki' })).slice(-2 * field)
  const x = point.slice(0, field)
  const y = point.slice(field)
  const ekX = pad(ek.x, field)
  const shared = diffieHellman({ privateKey: ephemeral.privateKey, publicKey: ekKey })
  const seed = kdfE(ek.nameAlgorithm, pad(shared, field), { label: IDENTITY, partyU: x, partyV: ekX })
  return { seed, encryptedSecret: concatBytes(sized(x), sized(y)) }
}

/** The outer wrapping: encrypt-then-MAC with keys derived from the seed and bound to the AK's name. */
export function sealCredential(input: {
  readonly hash: HashAlgorithm
  readonly symmetricBits: number
  readonly seed: Uint8Array
  readonly akName: Uint8Array
  readonly secret: Uint8Array
}): Uint8Array {
  const { hash, seed, akName } = input
  const digestBytes = HASH_BYTES[hash]
  if (input.secret.length > digestBytes) throw new RangeError(`secret of ${input.secret.length} bytes`)
  const key = kdfA(hash, seed, { label: 'STORAGE', contextU: akName, bits: input.symmetricBits })
  const algorithm = input.symmetricBits === 128 ? 'aes-128-cfb' : 'aes-256-cfb'
  const cipher = createCipheriv(algorithm, createSecretKey(key), new Uint8Array(16)) // as bytes: five times as much
  const encIdentity = concatBytes(cipher.update(sized(input.secret)), cipher.final())
  const macKey = kdfA(hash, seed, { label: 'INTEGRITY', contextU: new Uint8Array(), bits: 8 * digestBytes })
  const mac = createHmac(hash, createSecretKey(macKey)).update(encIdentity).update(akName).digest()
  return concatBytes(sized(mac), encIdentity)
}

/** KDFa (part 1, section 11.4.10.2): SP 800-108 in counter mode. The label's terminating zero is hashed once. */
export function kdfA(
  hash: HashAlgorithm,
  key: Uint8Array,
  options: { readonly label: string; readonly contextU: Uint8Array; readonly bits: number },
): Uint8Array {
  const blocks: Uint8Array[] = []
  const bytes = options.bits / 8
  const secret = createSecretKey(key) // given as bytes it costs twice as much
  for (let counter = 1; (counter - 1) * HASH_BYTES[hash] < bytes; counter++) {
    const hmac = createHmac(hash, secret).update(u32(counter)).update(`${options.label}\0`)
    blocks.push(hmac.update(options.contextU).update(u32(options.bits)).digest())
  }
  return concatBytes(...blocks).slice(0, bytes)
}

/** KDFe (part 1, section 11.4.10.3), for one digest's length. */
function kdfE(
  hash: HashAlgorithm,
  z: Uint8Array,
  info: { readonly label: string; readonly partyU: Uint8Array; readonly partyV: Uint8Array },
): Uint8Array {
  const digest = createHash(hash).update(u32(1)).update(z).update(`${info.label}\0`).update(info.partyU)
  return new Uint8Array(digest.update(info.partyV).digest())
}
