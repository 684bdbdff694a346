/**
 * From a passphrase to the volume key of a LUKS2 device and back: PBKDF2, AES-XTS over the keyslot's area, and the
 * anti-forensic split (LUKS On-Disk Format Specification, "AF splitter"), with the digest that tells the right key.
 */

import type { CryptoProvider } from '#protocol/crypto-provider'
import { concatBytes } from '#protocol/encoding'
import { AREA_BYTES, KEY_BYTES, type LuksHeader, type LuksKeyslot, type Pbkdf2, STRIPES } from './header.ts'

/** What a disk's keys need of cryptography, besides hashes. */
export interface DiskCrypto extends Pick<CryptoProvider, 'createHash' | 'randomBytes' | 'timingSafeEqual'> {
  pbkdf2(secret: Uint8Array, kdf: Pbkdf2, bytes: number): Promise<Uint8Array>
  /** AES-256-XTS over whole 512-byte sectors, numbered from 0 (plain64). */
  xts(direction: 'encrypt' | 'decrypt', key: Uint8Array, sectors: Uint8Array): Uint8Array
}

const HASH_BYTES = 32

/** The volume key, when this slot holds it under this passphrase. @param area `AREA_BYTES` of the slot's area */
export async function openKeyslot(
  crypto: DiskCrypto,
  {
    slot,
    area,
    digest,
  }: { readonly slot: LuksKeyslot; readonly area: Uint8Array; readonly digest: LuksHeader['digest'] },
  passphrase: Uint8Array,
): Promise<Uint8Array | undefined> {
  const key = await crypto.pbkdf2(passphrase, slot.kdf, KEY_BYTES)
  const stripes = crypto.xts('decrypt', key, area)
  const candidate = merge(crypto, stripes)
  for (const secret of [key, stripes]) secret.fill(0)
  const found = await crypto.pbkdf2(candidate, digest, digest.value.byteLength)
  if (crypto.timingSafeEqual(found, digest.value)) return candidate
  candidate.fill(0)
  return undefined
}

/** The area of a slot that holds the volume key under this passphrase. */
export async function sealKeyslot(
  crypto: DiskCrypto,
  kdf: Pbkdf2,
  { volumeKey, passphrase }: { readonly volumeKey: Uint8Array; readonly passphrase: Uint8Array },
): Promise<Uint8Array> {
  const key = await crypto.pbkdf2(passphrase, kdf, KEY_BYTES)
  const stripes = split(crypto, volumeKey)
  const area = crypto.xts('encrypt', key, stripes)
  for (const secret of [key, stripes]) secret.fill(0)
  return area
}

function split(crypto: DiskCrypto, volumeKey: Uint8Array): Uint8Array {
  const stripes = new Uint8Array(AREA_BYTES)
  stripes.set(crypto.randomBytes(KEY_BYTES * (STRIPES - 1)))
  const last = gathered(crypto, stripes)
  for (let at = 0; at < KEY_BYTES; at++) last[at] = (last[at] ?? 0) ^ (volumeKey[at] ?? 0)
  stripes.set(last, KEY_BYTES * (STRIPES - 1))
  return stripes
}

function merge(crypto: DiskCrypto, stripes: Uint8Array): Uint8Array {
  const key = gathered(crypto, stripes)
  const last = KEY_BYTES * (STRIPES - 1)
  for (let at = 0; at < KEY_BYTES; at++) key[at] = (key[at] ?? 0) ^ (stripes[last + at] ?? 0)
  return key
}

/** All stripes but the last, each diffused into the next. */
function gathered(crypto: DiskCrypto, stripes: Uint8Array): Uint8Array {
  let block = new Uint8Array(KEY_BYTES)
  for (let stripe = 0; stripe < STRIPES - 1; stripe++) {
    const start = stripe * KEY_BYTES
    for (let at = 0; at < KEY_BYTES; at++) block[at] = (block[at] ?? 0) ^ (stripes[start + at] ?? 0)
    block = diffused(crypto, block)
  }
  return block
}

/** Each part is hashed after its number, 32 bits big-endian. */
function diffused(crypto: DiskCrypto, block: Uint8Array): Uint8Array<ArrayBuffer> {
  const parts = Array.from({ length: KEY_BYTES / HASH_BYTES }, (_, index) => {
    const hash = crypto.createHash('sha256')
    hash.update(new Uint8Array([0, 0, 0, index]))
    hash.update(block.subarray(index * HASH_BYTES, (index + 1) * HASH_BYTES))
    return hash.digest()
  })
  return new Uint8Array(concatBytes(...parts))
}
