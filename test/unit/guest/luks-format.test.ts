/** A disk that is formatted while the machine may die: after any sector, and between any two steps. */
import test from 'ava'
import { BlockVolumes } from '#guest/agent/block-volumes'
import type { LuksVolumeRule } from '#policies/volume-rule'
import { FakePlatform } from './fake-platform.ts'

const RULE: LuksVolumeRule = {
  kind: 'luks',
  name: 'db',
  key: 'default/keys/db',
  formatEmpty: true,
  gid: 2000,
}
const SECTOR = 512
/** Where the file system lies on the disk, and what of it is looked at here. */
const INODES_AT = 16 * 1024 * 1024
const SUPERBLOCK_AT = INODES_AT + 2 * SECTOR
const ROOT_AT = INODES_AT + 4 * SECTOR
const SUPERBLOCK = 0x53
const ROOT_OF_POD = 0x52

/** A disk that keeps what was written before the power went, whole sectors of it. */
class FragileDisk {
  readonly bytes: Uint8Array = new Uint8Array(18 * 1024 * 1024)
  written = 0
  #left = Number.POSITIVE_INFINITY

  lose(afterSectors: number): void {
    this.#left = afterSectors
  }

  write(offset: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.byteLength; at += SECTOR) {
      this.alive()
      this.#left--
      this.written++
      this.bytes.set(bytes.subarray(at, at + SECTOR), offset + at)
    }
  }

  alive(): void {
    if (this.#left <= 0) throw new Error('the power is gone')
  }
}

const filled = (value: number): Uint8Array => new Uint8Array(2 * SECTOR).fill(value)

/** A guest that finds this disk; its mke2fs and its ext4 leave on it what a later guest needs to find. */
function guestWith(disk: FragileDisk): FakePlatform {
  const platform = new FakePlatform()
  const { storage, processes, files } = platform
  let owned = false
  Object.assign(storage, {
    deviceSize: async () => disk.bytes.byteLength,
    readDevice: async (_path: string, offset: number, length: number) => disk.bytes.slice(offset, offset + length),
    writeDevice: async (_path: string, offset: number, bytes: Uint8Array) => disk.write(offset, bytes),
    mount: async () => {
      disk.alive()
      if (disk.bytes[SUPERBLOCK_AT] !== SUPERBLOCK) throw new Error('mount failed: EINVAL')
    },
  })
  Object.assign(processes, {
    run: async (path: string) => {
      platform.log.push(`run ${path}`)
      disk.write(INODES_AT, filled(1))
      disk.write(ROOT_AT, filled(1))
      disk.write(SUPERBLOCK_AT, filled(SUPERBLOCK))
      return { code: 0, stdout: new Uint8Array(), stderr: new Uint8Array() }
    },
  })
  Object.assign(files, {
    // Stays in memory until somebody asks for it on the disk.
    own: async () => {
      disk.alive()
      owned = true
    },
    sync: async () => {
      if (owned) disk.write(ROOT_AT, filled(ROOT_OF_POD))
    },
  })
  return platform
}

async function open(platform: FakePlatform, rule: LuksVolumeRule): Promise<void> {
  const volumes = new BlockVolumes({ platform, released: async () => new Uint8Array(64).fill(3) })
  volumes.assign({ rule: { volume: rule, path: '/dev/db', readOnly: false, uid: 0, gid: 0 }, disk: 'block-0' })
  await using undo = new AsyncDisposableStack()
  await volumes.open(rule, '/target', undo)
}

test('a guest that dies while it formats a disk leaves one that the next guest formats, or a whole volume', async (t) => {
  const whole = new FragileDisk()
  await open(guestWith(whole), RULE)
  const last = whole.written
  const points = [0, 1, 300, last - 68, last - 66, last - 64, last - 30, last - 1, last]
  for (const sectors of points) {
    const disk = new FragileDisk()
    disk.lose(sectors)
    const dies = open(guestWith(disk), RULE)
    await (sectors === last ? dies : t.throwsAsync(dies, undefined, `${sectors}`))
    disk.lose(Number.POSITIVE_INFINITY)
    await t.notThrowsAsync(open(guestWith(disk), RULE), `after ${sectors} sectors of ${last}`)
    t.is(disk.bytes[ROOT_AT], ROOT_OF_POD, `containers may write after ${sectors} sectors`)
    const later = guestWith(disk)
    await open(later, { ...RULE, formatEmpty: false })
    t.deepEqual(
      later.log.filter((step) => step.startsWith('run')),
      [],
    )
  }
})

test('formatting that was cut short is taken up only where the policy lets disks be formatted', async (t) => {
  const disk = new FragileDisk()
  disk.lose(100)
  await t.throwsAsync(open(guestWith(disk), RULE))
  disk.lose(Number.POSITIVE_INFINITY)
  await t.throwsAsync(open(guestWith(disk), { ...RULE, formatEmpty: false }), { code: 'ERR_LUKS_HEADER' })
})

test('an encrypted volume without a file system that can be mounted says so, and what helps', async (t) => {
  const disk = new FragileDisk()
  await open(guestWith(disk), RULE)
  disk.bytes.fill(0, SUPERBLOCK_AT, SUPERBLOCK_AT + SECTOR)
  const error = await t.throwsAsync(open(guestWith(disk), RULE), { code: 'ERR_VOLUME' })
  t.regex(error?.message ?? '', /^the encrypted volume db /)
  t.regex((error as { hint?: string }).hint ?? '', /mkfs\.ext4/)
})
