/**
 * A volume on a disk of the host, encrypted with a key that the verifier released. The header is judged before anything is
 * derived from it; an empty disk gets one only where the policy says so.
 *
 * Formatting may be cut short at any moment. So the first sector, which a disk writes as a whole or not at all, says what
 * the rest is: nothing but zeros before, `UNFINISHED` while header, keyslot and file system are made, and the header once
 * they are there. A disk with that mark is formatted from the start again. A host that writes the mark gains what it has
 * with an empty disk.
 */
import { concatBytes, equalBytes } from '#protocol/encoding'
import { UnavailableError, UnverifiedError } from '#protocol/errors'
import type { Platform } from '../platform/platform.ts'
import {
  AREA_BYTES,
  encodeLuksHeader,
  HEADER_COPY_BYTES,
  KEY_BYTES,
  type LuksHeader,
  parseLuksCopySize,
  parseLuksHeader,
} from './header.ts'
import { openKeyslot, sealKeyslot } from './keyslot.ts'

export interface LuksPlan {
  /** Path of the disk. */
  readonly device: string
  /** Name of the mapping: the guest's own. */
  readonly name: string
  /** At least `MIN_PASSPHRASE_BYTES`; the caller wipes it. */
  readonly passphrase: Uint8Array
  /** Whether a disk that is empty, or whose formatting was cut short, is formatted. */
  readonly formatEmpty: boolean
}

type Machine = Pick<Platform, 'storage' | 'diskCrypto'>

/** A key that a person could remember is one that the owner of the disk could try. */
export const MIN_PASSPHRASE_BYTES = 32

/** The key is random: what makes guessing of passwords slow would only slow the start. */
const ITERATIONS = 1000
/** All of this is zero on a disk that counts as empty: both headers, keyslots, and the start of the data. */
const EMPTY_BYTES = 17 * 1024 * 1024
const CHUNK_BYTES = 1024 * 1024
const SECTOR_BYTES = 512
/** The first sector of a disk that is being formatted. */
const UNFINISHED = filledSector('caisson: this disk is being formatted\n')

export interface LuksVolume {
  /** Of the decrypted device. */
  readonly path: string
  /**
   * On a disk that was formatted: makes it a volume, to be called when its file system is on the disk. Until then, whoever
   * opens the disk formats it.
   */
  readonly finish: (() => Promise<void>) | undefined
}

/** @throws UnverifiedError ERR_LUKS_KEY; MalformedError ERR_LUKS_HEADER; UnavailableError ERR_VOLUME_DISK */
export async function openLuksVolume(machine: Machine, plan: LuksPlan): Promise<LuksVolume> {
  const { storage } = machine
  const { device, name, passphrase, formatEmpty } = plan
  if (passphrase.byteLength < MIN_PASSPHRASE_BYTES) {
    throw new UnverifiedError('ERR_LUKS_KEY', `the key of an encrypted volume has ${passphrase.byteLength} bytes`, {
      hint: `Store at least ${MIN_PASSPHRASE_BYTES} random bytes: head -c 64 /dev/urandom`,
    })
  }
  const bytes = await storage.deviceSize(device)
  if (bytes < EMPTY_BYTES) throw tooSmall(bytes)
  const fresh = formatEmpty && (await isUnused(machine, device))
  const opened = fresh ? await format(machine, device, passphrase) : await unlock(machine, device, passphrase)
  const { header, volumeKey, finish } = opened
  try {
    if (header.dataOffset >= bytes) throw tooSmall(bytes)
    const dataBytes = bytes - header.dataOffset
    const sectors = Math.floor(dataBytes / header.sectorBytes) * (header.sectorBytes / 512)
    const { dataOffset, sectorBytes } = header
    const path = await storage.openCrypt(name, { device, key: volumeKey, offset: dataOffset, sectors, sectorBytes })
    return { path, finish }
  } finally {
    volumeKey.fill(0)
  }
}

interface Opened {
  readonly header: LuksHeader
  readonly volumeKey: Uint8Array
  readonly finish?: LuksVolume['finish']
}

async function unlock({ storage, diskCrypto }: Machine, device: string, passphrase: Uint8Array): Promise<Opened> {
  const size = parseLuksCopySize(await storage.readDevice(device, 0, HEADER_COPY_BYTES))
  const header = parseLuksHeader(await storage.readDevice(device, 0, size), diskCrypto)
  for (const slot of header.keyslots) {
    const area = await storage.readDevice(device, slot.areaOffset, AREA_BYTES)
    const volumeKey = await openKeyslot(diskCrypto, { slot, area, digest: header.digest }, passphrase)
    if (volumeKey !== undefined) return { header, volumeKey }
  }
  throw new UnverifiedError('ERR_LUKS_KEY', 'the key that the verifier released opens no keyslot of the disk', {
    hint: 'The host may have given another disk; else add the key with cryptsetup luksAddKey.',
  })
}

async function format({ storage, diskCrypto }: Machine, device: string, passphrase: Uint8Array): Promise<Opened> {
  const salt = (): Uint8Array => diskCrypto.randomBytes(32)
  const volumeKey = diskCrypto.randomBytes(KEY_BYTES)
  const kdf = { hash: 'sha256', iterations: ITERATIONS, salt: salt() } as const
  const bare = { hash: 'sha256', iterations: ITERATIONS, salt: salt() } as const
  const digest = { ...bare, value: await diskCrypto.pbkdf2(volumeKey, bare, 32) }
  const input = {
    kdf,
    digest,
    uuid: uuid(diskCrypto.randomBytes(16)),
    salts: concatBytes(salt(), salt(), salt(), salt()),
  }
  const { copies, header } = encodeLuksHeader(input, diskCrypto)
  const area = await sealKeyslot(diskCrypto, kdf, { volumeKey, passphrase })
  await storage.writeDevice(device, 0, UNFINISHED)
  for (const slot of header.keyslots) await storage.writeDevice(device, slot.areaOffset, area)
  const finish = async (): Promise<void> => {
    await storage.writeDevice(device, SECTOR_BYTES, copies.subarray(SECTOR_BYTES))
    await storage.writeDevice(device, 0, copies.subarray(0, SECTOR_BYTES))
  }
  return { header, volumeKey, finish }
}

/** Whether it is empty, or was being formatted. */
async function isUnused({ storage }: Machine, device: string): Promise<boolean> {
  if (equalBytes(await storage.readDevice(device, 0, SECTOR_BYTES), UNFINISHED)) return true
  for (let at = 0; at < EMPTY_BYTES; at += CHUNK_BYTES) {
    const chunk = await storage.readDevice(device, at, CHUNK_BYTES)
    if (chunk.some((byte) => byte !== 0)) return false
  }
  return true
}

function filledSector(text: string): Uint8Array {
  const sector = new Uint8Array(SECTOR_BYTES)
  sector.set(new TextEncoder().encode(text))
  return sector
}

/** RFC 9562 5.4. */
function uuid(random: Uint8Array): string {
  const bytes = [...random].map((byte, index) =>
    index === 6 ? (byte & 0x0f) | 0x40 : index === 8 ? (byte & 0x3f) | 0x80 : byte,
  )
  const hex = bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}

function tooSmall(bytes: number): UnavailableError {
  return new UnavailableError('ERR_VOLUME_DISK', `the disk of an encrypted volume has ${bytes} bytes, too few`, {
    hint: 'LUKS2 takes 16 MiB for itself: give a disk of at least 32 MiB.',
  })
}
