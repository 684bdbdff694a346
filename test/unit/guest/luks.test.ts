import test from 'ava'
import fc from 'fast-check'
import {
  AREA_BYTES,
  encodeLuksHeader,
  HEADER_COPY_BYTES,
  type LuksHeader,
  parseLuksCopySize,
  parseLuksHeader,
} from '#guest/luks/header'
import { openKeyslot, sealKeyslot } from '#guest/luks/keyslot'
import { nodeDiskCrypto } from '#guest/platform/node/disk-crypto'
import { refusesOrKeeps } from '../parser-property.ts'

const PASSPHRASE = new Uint8Array(32).fill(7)
const VOLUME_KEY = new Uint8Array(64).map((_, index) => index)
const SALT = new Uint8Array(32).fill(1)
const KDF = { hash: 'sha256', iterations: 1000, salt: SALT } as const

async function made(): Promise<{ copies: Uint8Array; header: LuksHeader }> {
  const digest = { ...KDF, value: await nodeDiskCrypto.pbkdf2(VOLUME_KEY, KDF, 32) }
  const salts = new Uint8Array(128)
  return encodeLuksHeader({ kdf: KDF, digest, uuid: '0-0', salts }, nodeDiskCrypto)
}

const first = (copies: Uint8Array) => copies.subarray(0, HEADER_COPY_BYTES)

/** A header whose metadata is changed, and whose checksum is right again: whoever owns the disk can make one. */
async function forged(change: (metadata: string) => string): Promise<Uint8Array> {
  const copy = new Uint8Array(first((await made()).copies))
  const json = copy.subarray(4096)
  const text = new TextDecoder().decode(json.subarray(0, json.indexOf(0)))
  const changed = new TextEncoder().encode(change(text))
  json.fill(0)
  json.set(changed)
  return resealed(copy)
}

function resealed(copy: Uint8Array): Uint8Array {
  copy.fill(0, 448, 512)
  const hash = nodeDiskCrypto.createHash('sha256')
  hash.update(copy)
  copy.set(hash.digest(), 448)
  return copy
}

test('a header that was written is read as it was', async (t) => {
  const { copies, header } = await made()
  t.is(parseLuksCopySize(copies), HEADER_COPY_BYTES)
  t.deepEqual(parseLuksHeader(first(copies), nodeDiskCrypto), header)
})

test('a changed byte of the header is noticed', async (t) => {
  const { copies } = await made()
  fc.assert(
    fc.property(fc.nat(5000), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const copy = new Uint8Array(first(copies))
      copy[at] = (copy[at] ?? 0) ^ change
      // Bytes after the checksum's own are zero, and nobody reads them.
      if (at >= 480 && at < 512) return true
      t.throws(() => parseLuksHeader(copy, nodeDiskCrypto), { code: 'ERR_LUKS_HEADER' })
      return true
    }),
  )
})

test('whatever a forger writes with a right checksum has the one known form, or is refused', async (t) => {
  const good = first((await made()).copies)
  const text = new TextDecoder().decode(good.subarray(4096, good.indexOf(0, 4096)))
  const piece = fc.oneof(
    fc.string({ maxLength: 6 }),
    fc.constantFrom('"', '{}', 'null', '0', 'cipher_null-ecb', '-1', '9e99'),
  )
  const inputs = fc.tuple(fc.nat(text.length), fc.nat(20), piece).map(([at, length, put]) => {
    const copy = new Uint8Array(good)
    const bytes = new TextEncoder().encode(text.slice(0, at) + put + text.slice(at + length)).subarray(0, 12_000)
    copy.fill(0, 4096)
    copy.set(bytes, 4096)
    return resealed(copy)
  })
  refusesOrKeeps(
    t,
    inputs,
    (copy) => parseLuksHeader(copy, nodeDiskCrypto),
    ({ keyslots, digest, dataOffset, sectorBytes }) => {
      return (
        keyslots.length > 0 &&
        keyslots.every(({ kdf, areaOffset }) => kdf.iterations >= 1000 && areaOffset % 512 === 0) &&
        digest.value.byteLength === 32 &&
        dataOffset % sectorBytes === 0
      )
    },
  )
  refusesOrKeeps(t, fc.uint8Array({ maxLength: 5000 }), parseLuksCopySize, (bytes) => bytes >= HEADER_COPY_BYTES)
})

const forgeries: Readonly<Record<string, (metadata: string) => string>> = {
  'data without encryption': (text) => text.replace(/(segments.*)aes-xts-plain64/, '$1cipher_null-ecb'),
  'a keyslot without encryption': (text) => text.replace('aes-xts-plain64', 'cipher_null-ecb'),
  'a derivation that takes the guest’s memory': (text) => text.replace('"pbkdf2"', '"argon2id"'),
  'a derivation that never ends': (text) => text.replace('"iterations":1000', '"iterations":4294967295'),
  'a derivation that is none': (text) => text.replace('"iterations":1000', '"iterations":1'),
  'shorter keys': (text) => text.replaceAll('"key_size":64', '"key_size":32'),
  'a second segment': (text) => text.replace('"segments":{', '"segments":{"1":{},'),
  'an unfinished re-encryption': (text) =>
    text.replace('"config":{', '"config":{"requirements":{"mandatory":["online-reencrypt"]},'),
  'no keyslot': (text) => text.replace(/"keyslots":\{"0":/, '"keyslots":{"x":'),
}
for (const [what, change] of Object.entries(forgeries)) {
  test(`a disk whose header claims ${what} is refused`, async (t) => {
    const copy = await forged(change)
    t.notDeepEqual(copy, first((await made()).copies))
    t.throws(() => parseLuksHeader(copy, nodeDiskCrypto), { code: 'ERR_LUKS_HEADER' })
  })
}

test('the volume key comes out under its passphrase, and under no other', async (t) => {
  const { header } = await made()
  const [slot] = header.keyslots
  if (slot === undefined) return t.fail()
  const area = await sealKeyslot(nodeDiskCrypto, KDF, { volumeKey: VOLUME_KEY, passphrase: PASSPHRASE })
  t.is(area.byteLength, AREA_BYTES)
  const { digest } = header
  t.deepEqual(await openKeyslot(nodeDiskCrypto, { slot, area, digest }, PASSPHRASE), VOLUME_KEY)
  t.is(await openKeyslot(nodeDiskCrypto, { slot, area, digest }, new Uint8Array(32)), undefined)
  const damaged = new Uint8Array(area)
  damaged[100_000] = (damaged[100_000] ?? 0) ^ 1
  t.is(await openKeyslot(nodeDiskCrypto, { slot, area: damaged, digest }, PASSPHRASE), undefined)
})
