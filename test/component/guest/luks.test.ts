/** LUKS2 as cryptsetup writes and reads it: each side opens what the other made. */
import { execFileSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { AREA_BYTES, encodeLuksHeader, parseLuksCopySize, parseLuksHeader } from '#guest/luks/header'
import { openKeyslot, sealKeyslot } from '#guest/luks/keyslot'
import { nodeDiskCrypto } from '#guest/platform/node/disk-crypto'

const PASSPHRASE = new Uint8Array(32).map((_, index) => index * 7)

function disk(t: ExecutionContext): { image: string; key: string } {
  const folder = mkdtempSync(join(tmpdir(), 'luks-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const [image, key] = [join(folder, 'disk'), join(folder, 'key')]
  writeFileSync(image, '')
  truncateSync(image, 32 * 1024 * 1024)
  writeFileSync(key, PASSPHRASE)
  return { image, key }
}

async function opens(image: string, passphrase: Uint8Array): Promise<number | undefined> {
  const bytes = new Uint8Array(readFileSync(image))
  const { keyslots, digest } = parseLuksHeader(bytes.subarray(0, parseLuksCopySize(bytes)), nodeDiskCrypto)
  for (const slot of keyslots) {
    const area = bytes.subarray(slot.areaOffset, slot.areaOffset + AREA_BYTES)
    const key = await openKeyslot(nodeDiskCrypto, { slot, area, digest }, passphrase)
    if (key !== undefined) return key.byteLength
  }
  return undefined
}

test('a disk that cryptsetup formatted opens with its key, in any keyslot, and with no other', async (t) => {
  const { image, key } = disk(t)
  const options = ['--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000', '--key-file', key]
  execFileSync('cryptsetup', ['luksFormat', '-q', '--type', 'luks2', '--key-size', '512', ...options, image])
  t.is(await opens(image, PASSPHRASE), 64)
  t.is(await opens(image, new Uint8Array(32)), undefined)
  const second = join(image, '..', 'second')
  writeFileSync(second, 'another passphrase')
  execFileSync('cryptsetup', ['luksAddKey', '-q', ...options, image, second])
  t.is(await opens(image, new TextEncoder().encode('another passphrase')), 64)
})

test('a disk that the guest formatted opens with cryptsetup', async (t) => {
  const { image, key } = disk(t)
  const salt = nodeDiskCrypto.randomBytes(32)
  const kdf = { hash: 'sha256', iterations: 1000, salt } as const
  const volumeKey = nodeDiskCrypto.randomBytes(64)
  const digest = { ...kdf, value: await nodeDiskCrypto.pbkdf2(volumeKey, kdf, 32) }
  const uuid = '7b1b4c1e-0b0c-4b0e-8f43-6d5a4d1f9b01'
  const { copies, header } = encodeLuksHeader(
    { kdf, digest, uuid, salts: nodeDiskCrypto.randomBytes(128) },
    nodeDiskCrypto,
  )
  const area = await sealKeyslot(nodeDiskCrypto, kdf, { volumeKey, passphrase: PASSPHRASE })
  const file = openSync(image, 'r+')
  writeSync(file, copies, 0, copies.byteLength, 0)
  writeSync(file, area, 0, area.byteLength, header.keyslots[0]?.areaOffset ?? 0)
  closeSync(file)
  t.regex(execFileSync('cryptsetup', ['luksDump', image], { encoding: 'utf8' }), /aes-xts-plain64/)
  t.notThrows(() => execFileSync('cryptsetup', ['open', '--test-passphrase', '--key-file', key, image]))
  // The second copy is good, too: cryptsetup repairs the first from it.
  const damaged = openSync(image, 'r+')
  writeSync(damaged, new Uint8Array(4096), 0, 4096, 0)
  closeSync(damaged)
  t.notThrows(() => execFileSync('cryptsetup', ['open', '--test-passphrase', '--key-file', key, image]))
})
