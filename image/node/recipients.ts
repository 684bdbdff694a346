/**
 * For whom an image is encrypted, and with what it is decrypted, in the words that skopeo takes: `jwe:FILE`,
 * `pkcs7:FILE`, `pgp:FILE`, `provider:attestation-agent:keyid=kbs:///…::keypath=FILE`.
 */
import {
  createPrivateKey,
  createPublicKey,
  type JsonWebKey,
  type KeyObject,
  randomBytes,
  X509Certificate,
} from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createMessage, decrypt, encrypt, readKeys, readMessage, readPrivateKeys } from 'openpgp'
import { errorText, UnverifiedError, UsageError } from '#protocol/errors'
import { COCO_PROVIDER, type WrappedKey } from '../encryption/annotations.ts'
import { type JweRecipient, openJwe, sealJwe } from '../encryption/jwe.ts'
import { sealKeyPacket } from '../encryption/packet.ts'
import type { KeyUnwrapper } from '../encryption/unwrap.ts'
import { nodeLayerCipher } from './layer-cipher.ts'
import { openEnvelope, sealEnvelope } from './pkcs7.ts'

/** Wraps a layer's private options for everybody the image is for. */
export type KeyWrapper = (options: Uint8Array) => Promise<readonly WrappedKey[]>

const EC_ALGORITHM = 'ECDH-ES+A256KW'

/** Throws `UsageError` ERR_RECIPIENT for words or files that name no recipient. */
export function recipientsWrapper(recipients: readonly string[]): KeyWrapper {
  const of = (prefix: string): readonly string[] =>
    recipients.filter((recipient) => recipient.startsWith(prefix)).map((recipient) => recipient.slice(prefix.length))
  const unknown = recipients.find((recipient) => !/^(?:jwe|pkcs7|pgp|provider:attestation-agent):./.test(recipient))
  if (unknown !== undefined || recipients.length === 0) throw badRecipient(unknown ?? '', 'it names no recipient')
  const jwe = of('jwe:').map(jweRecipient)
  const certificates = of('pkcs7:').map(rsaCertificate)
  const pgpFiles = of('pgp:')
  const packets = of('provider:attestation-agent:').map(providerKey)
  return async (options) => {
    const wrapped: WrappedKey[] = []
    if (jwe.length > 0) wrapped.push({ scheme: 'jwe', bytes: await sealJwe(options, jwe) })
    if (certificates.length > 0) wrapped.push({ scheme: 'pkcs7', bytes: sealEnvelope(options, certificates) })
    if (pgpFiles.length > 0) wrapped.push({ scheme: 'pgp', bytes: await sealPgp(options, pgpFiles) })
    for (const { keyId, key } of packets) {
      const bytes = sealKeyPacket(nodeLayerCipher, { keyId, key, iv: randomBytes(12), options })
      wrapped.push({ scheme: COCO_PROVIDER, bytes })
    }
    return wrapped
  }
}

/**
 * Private keys in files: PEM, DER or JWK for JWE and PKCS#7, OpenPGP for PGP; each serves whatever it can.
 *
 * Throws `UsageError` ERR_RECIPIENT for a file that is no private key.
 */
export function keyFileUnwrappers(
  files: readonly { readonly path: string; readonly password?: string }[],
): KeyUnwrapper[] {
  const keys: KeyObject[] = []
  const pgp: PgpKeyFile[] = []
  for (const { path, password } of files) {
    const bytes = read(path)
    if (isOpenPgp(bytes)) pgp.push({ bytes, password })
    else keys.push(privateKey(path, bytes, password))
  }
  return [
    async ({ scheme, bytes }, what) => {
      if (scheme === 'jwe' && keys.length > 0) return await openJwe(bytes, keys, `wrapped key of ${what}`)
      if (scheme === 'pkcs7' && keys.length > 0) return openEnvelope(bytes, keys, `wrapped key of ${what}`)
      if (scheme === 'pgp' && pgp.length > 0) return await openPgp(bytes, pgp, `wrapped key of ${what}`)
      return undefined
    },
  ]
}

interface PgpKeyFile {
  readonly bytes: Buffer
  readonly password: string | undefined
}

function isArmored(bytes: Buffer): boolean {
  return bytes.includes('-----BEGIN PGP')
}

/** Every binary packet starts with its top bit set; neither text nor DER does. */
function isOpenPgp(bytes: Buffer): boolean {
  return isArmored(bytes) || (bytes[0] ?? 0) >= 0x80
}

function jweRecipient(path: string): JweRecipient {
  const bytes = read(path)
  let key: KeyObject
  try {
    key = bytes.includes('-----BEGIN CERTIFICATE-----')
      ? new X509Certificate(bytes).publicKey
      : createPublicKey(keyInput(bytes, 'spki'))
  } catch (cause) {
    throw badRecipient(path, 'it is neither a public key nor a certificate', cause)
  }
  if (key.asymmetricKeyType === 'rsa') return { key, algorithm: 'RSA-OAEP' }
  if (key.asymmetricKeyType === 'ec') return { key, algorithm: EC_ALGORITHM }
  throw badRecipient(path, `a key of type ${key.asymmetricKeyType} cannot receive`)
}

function rsaCertificate(path: string): Uint8Array {
  const bytes = read(path)
  try {
    if (new X509Certificate(bytes).publicKey.asymmetricKeyType === 'rsa') return bytes
  } catch (cause) {
    throw badRecipient(path, 'it is not a certificate', cause)
  }
  throw badRecipient(path, 'PKCS#7 needs a certificate of an RSA key')
}

/** Confidential Containers' parameters: `keyid=…::keypath=…`, in any order; `algorithm` may only be the default. */
function providerKey(parameters: string): { keyId: string; key: Uint8Array } {
  const given = new Map(
    parameters.split('::').map((part): [string, string] => {
      const equals = part.indexOf('=')
      return [part.slice(0, equals), part.slice(equals + 1)]
    }),
  )
  const [keyId, path] = [given.get('keyid'), given.get('keypath')]
  const unknown = [...given.keys()].find((name) => !['keyid', 'keypath', 'sample', 'algorithm'].includes(name))
  if (keyId === undefined || path === undefined || unknown !== undefined) {
    throw badRecipient(
      parameters,
      unknown === undefined ? 'keyid and keypath are needed' : `unknown parameter ${unknown}`,
    )
  }
  if ((given.get('algorithm') ?? 'A256GCM') !== 'A256GCM') throw badRecipient(parameters, 'algorithm must be A256GCM')
  if ((given.get('sample') ?? 'false') !== 'false')
    throw badRecipient(parameters, 'the sample key is known to everybody')
  return { keyId, key: read(path) }
}

async function sealPgp(options: Uint8Array, files: readonly string[]): Promise<Uint8Array> {
  const encryptionKeys = (
    await Promise.all(
      files.map((path) => {
        const bytes = read(path)
        return isArmored(bytes) ? readKeys({ armoredKeys: bytes.toString('utf8') }) : readKeys({ binaryKeys: bytes })
      }),
    )
  ).flat()
  const message = await createMessage({ binary: options })
  return (await encrypt({ message, encryptionKeys, format: 'binary' })) as Uint8Array
}

async function openPgp(bytes: Uint8Array, files: readonly PgpKeyFile[], what: string): Promise<Uint8Array> {
  const { decryptKey } = await import('openpgp')
  try {
    const decryptionKeys = []
    for (const { bytes: file, password: passphrase } of files) {
      const keys = isArmored(file)
        ? await readPrivateKeys({ armoredKeys: file.toString('utf8') })
        : await readPrivateKeys({ binaryKeys: file })
      for (const key of keys) {
        const locked = !key.isDecrypted() && passphrase !== undefined
        decryptionKeys.push(locked ? await decryptKey({ privateKey: key, passphrase }) : key)
      }
    }
    const message = await readMessage({ binaryMessage: bytes })
    const { data } = await decrypt({ message, decryptionKeys, format: 'binary' })
    return data as Uint8Array
  } catch (cause) {
    throw new UnverifiedError('ERR_LAYER_KEY', `${what}: no OpenPGP key that was given opens it: ${errorText(cause)}`, {
      cause,
      hint: 'Give the private key of a recipient the image was encrypted for.',
    })
  }
}

function privateKey(path: string, bytes: Buffer, password: string | undefined): KeyObject {
  try {
    const input = keyInput(bytes, 'pkcs8')
    return createPrivateKey(password === undefined ? input : { ...input, passphrase: password })
  } catch (cause) {
    throw badRecipient(path, 'it is not a private key', cause)
  }
}

interface KeyInput<Type> {
  readonly key: Buffer
  readonly format: 'pem' | 'der'
  readonly type: Type
}

/** PEM says its own type. JWK are turned into DER, so that one shape is enough. */
function keyInput<Type extends 'spki' | 'pkcs8'>(bytes: Buffer, type: Type): KeyInput<Type> {
  if (bytes[0] !== 0x7b) return { key: bytes, format: bytes.includes('-----BEGIN ') ? 'pem' : 'der', type }
  const jwk = { key: JSON.parse(bytes.toString('utf8')), format: 'jwk' } as const
  const key = type === 'spki' ? createPublicKey(jwk).export({ type: 'spki', format: 'der' }) : exportPrivate(jwk)
  return { key, format: 'der', type }
}

function exportPrivate(jwk: { readonly key: JsonWebKey; readonly format: 'jwk' }): Buffer {
  return createPrivateKey(jwk).export({ type: 'pkcs8', format: 'der' })
}

function read(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    throw badRecipient(path, 'it cannot be read', cause)
  }
}

function badRecipient(text: string, why: string, cause?: unknown): UsageError {
  return new UsageError('ERR_RECIPIENT', `recipient or key ${JSON.stringify(text.slice(0, 300))}: ${why}`, {
    hint: 'The forms are jwe:FILE, pkcs7:FILE, pgp:FILE and provider:attestation-agent:keyid=kbs:///…::keypath=FILE.',
    ...(cause === undefined ? {} : { cause }),
  })
}
