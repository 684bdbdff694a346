/**
 * OpenPGP signed messages (RFC 9580; what containers-signature(5) stores), judged as gpg judges them: one signature, by
 * a key of the keyring that is now neither expired nor revoked and may sign. Loaded only when a policy asks for it.
 *
 * SHA-1 signatures pass, as they do with gpg: signers of the years before 2020 made them. MD5 and RIPEMD do not.
 */
import {
  type Config,
  config as defaults,
  enums,
  type Key,
  type KeyID,
  readKeys,
  readMessage,
  type Signature,
  verify,
} from 'openpgp'
import { concatBytes } from '#protocol/encoding'
import { errorText, MalformedError, UnverifiedError } from '#protocol/errors'

export interface OpenPgpVerifier {
  readKeyring(files: readonly Uint8Array[], place: string): Promise<Keyring>
  verify(message: Uint8Array, keyring: Keyring, options: { now: Date; what: string }): Promise<OpenPgpSigned>
}

export interface Keyring {
  readonly keys: readonly Key[]
}

export interface OpenPgpSigned {
  readonly content: Uint8Array
  /** "OpenPGP key <fingerprint of the primary key>" */
  readonly signer: string
}

const MAX_CONTENT_BYTES = 128 * 1024
const MAX_KEYS = 1024
const CONFIG: Config = {
  ...defaults,
  maxDecompressedMessageSize: MAX_CONTENT_BYTES,
  rejectMessageHashAlgorithms: new Set([enums.hash.md5, enums.hash.ripemd]),
  rejectCurves: new Set(),
}

/**
 * Keys of files that are binary keyrings, or hold armored blocks and text around them, as gpg takes them.
 *
 * Throws `MalformedError` ERR_IMAGE_KEYRING for one that cannot be read or holds no key.
 */
export async function readKeyring(files: readonly Uint8Array[], place: string): Promise<Keyring> {
  const keys: Key[] = []
  try {
    for (const file of files) keys.push(...(await readFile(file)))
  } catch (cause) {
    throw unreadable(place, errorText(cause), cause)
  }
  if (keys.length === 0) throw unreadable(place, 'it holds no public key')
  if (keys.length > MAX_KEYS) throw unreadable(place, `it holds more than ${MAX_KEYS} keys`)
  return { keys: keys.map((key) => key.toPublic()) }
}

async function readFile(file: Uint8Array): Promise<readonly Key[]> {
  // Every binary packet starts with its top bit set, and no ASCII text does.
  if ((file[0] ?? 0) >= 0x80) return await readKeys({ binaryKeys: file, config: CONFIG })
  const blocks = new TextDecoder().decode(file).match(ARMORED) ?? []
  const keys = await Promise.all(blocks.map((armoredKeys) => readKeys({ armoredKeys, config: CONFIG })))
  return keys.flat()
}

const ARMORED = /-----BEGIN PGP PUBLIC KEY BLOCK-----[\s\S]*?-----END PGP PUBLIC KEY BLOCK-----/g

/** Throws `UnverifiedError` ERR_IMAGE_SIGNATURE, or `MalformedError` ERR_IMAGE_SIGNATURE_FORMAT. */
export async function verifyMessage(
  binaryMessage: Uint8Array,
  { keys }: Keyring,
  { now, what }: { now: Date; what: string },
): Promise<OpenPgpSigned> {
  let result: Awaited<ReturnType<typeof verifyBinary>>
  try {
    result = await verifyBinary(binaryMessage, keys, now)
  } catch (cause) {
    throw new MalformedError('ERR_IMAGE_SIGNATURE_FORMAT', `${what}: not an OpenPGP signed message`, { cause })
  }
  const [signature, ...more] = result.signatures
  if (signature === undefined || more.length > 0) {
    throw unverified(what, `it holds ${result.signatures.length} signatures that can be judged, one is wanted`)
  }
  const key = keys.find((candidate) => candidate.getKeys(signature.keyID).length > 0)
  if (key === undefined) {
    throw unverified(
      what,
      `signed by OpenPGP key ${signature.keyID.toHex().toUpperCase()}, which the policy does not name`,
    )
  }
  try {
    await signature.verified
    requireBinary(await signature.signature)
    // The above judged the key as it was when it signed; gpg refuses one that has expired or was revoked since.
    await requireUsableNow(key, signature.keyID, now)
  } catch (cause) {
    throw unverified(what, `the signature does not hold: ${errorText(cause)}`, cause)
  }
  return { content: result.data, signer: `OpenPGP key ${key.getFingerprint().toUpperCase()}` }
}

async function verifyBinary(binaryMessage: Uint8Array, keys: readonly Key[], now: Date) {
  const message = await readMessage({ binaryMessage, config: CONFIG })
  const { data, signatures } = await verify({
    message,
    verificationKeys: [...keys],
    date: now,
    format: 'binary',
    config: CONFIG,
  })
  return { data: concatBytes(data as Uint8Array), signatures }
}

function requireBinary(signature: Signature): void {
  for (const { signatureType } of signature.packets) {
    if (signatureType !== enums.signature.binary) throw new Error('it is not a signature over bytes')
  }
}

async function requireUsableNow(key: Key, id: KeyID, now: Date): Promise<void> {
  await key.getSigningKey(id, now, undefined, CONFIG)
}

function unverified(what: string, why: string, cause?: unknown): UnverifiedError {
  return new UnverifiedError('ERR_IMAGE_SIGNATURE', `${what}: ${why}`, {
    hint: 'Sign the image with a key of the policy’s keyring, or add the key it was signed with.',
    ...(cause === undefined ? {} : { cause }),
  })
}

function unreadable(place: string, why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_IMAGE_KEYRING', `image policy: ${place}: the keyring cannot be read: ${why}`, {
    hint: 'Export the keys again: gpg --export --armor FINGERPRINT.',
    ...(cause === undefined ? {} : { cause }),
  })
}

export const openPgp: OpenPgpVerifier = { readKeyring, verify: verifyMessage }
