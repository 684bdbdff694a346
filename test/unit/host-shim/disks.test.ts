import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { createScratchDisk, encodeInitdataDisk, MAX_INITDATA_BYTES } from '#host-shim/pod/disks'
import { vmSize } from '#host-shim/pod/pod-plan'

test('the initdata disk is magic, length, the bytes verbatim, and zeros to a whole sector', (t) => {
  const toml = Buffer.from('version = "0.1.0"\n')
  const disk = encodeInitdataDisk(toml)
  t.is(disk.byteLength, 512)
  t.is(Buffer.from(disk.subarray(0, 8)).toString('latin1'), 'CSINITD1')
  t.is(Buffer.from(disk).readBigUInt64LE(8), 18n)
  t.deepEqual(Buffer.from(disk.subarray(16, 34)), toml)
  t.true(disk.subarray(34).every((byte) => byte === 0))
})

test('a sector boundary neither cuts nor adds', (t) => {
  t.is(encodeInitdataDisk(new Uint8Array(512 - 16)).byteLength, 512)
  t.is(encodeInitdataDisk(new Uint8Array(512 - 15)).byteLength, 1024)
  t.is(encodeInitdataDisk(new Uint8Array(0)).byteLength, 512)
})

test('initdata above 1 MiB is refused', (t) => {
  t.notThrows(() => encodeInitdataDisk(new Uint8Array(MAX_INITDATA_BYTES)))
  t.throws(() => encodeInitdataDisk(new Uint8Array(MAX_INITDATA_BYTES + 1)), { code: 'ERR_INITDATA_SIZE' })
})

test('the scratch disk is sparse, private, and never an existing file', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'disk-'))
  t.teardown(() => rm(directory, { recursive: true }))
  const path = join(directory, 'scratch.img')
  await createScratchDisk(path, 4096)
  const { size, blocks, mode } = await stat(path)
  t.is(size, 4096 * 1024 * 1024)
  t.true(blocks < 16)
  t.is(mode & 0o777, 0o600)
  await t.throwsAsync(createScratchDisk(path, 1), { code: 'EEXIST' })
})

test('a VM is as large as the limits of its containers and the overhead of the guest', (t) => {
  t.deepEqual(
    vmSize([
      { memoryMib: 300, cpus: 0.5 },
      { memoryMib: 200, cpus: 1.2 },
    ]),
    { memoryMib: 756, vcpus: 2 },
  )
  t.deepEqual(vmSize([{}]), { memoryMib: 768, vcpus: 1 })
})
