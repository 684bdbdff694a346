import { copyFile, open } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import type { GuestImage } from '#guest/build/build'
import { boot, extendedFromZero, initdataDisk, probeGuest, scratchFolder, softwareTpm } from './machine.ts'

const TOML = 'version = "0.1.0"\nalgorithm = "sha256"\n'
const FIRMWARE = ['-bios', '/usr/share/ovmf/OVMF.fd']

let guest: GuestImage
test.before(async (t) => {
  t.timeout(1_200_000)
  guest = await probeGuest()
})

const tpmLine = () => guest.manifest.cmdline.tpm
const noneLine = () => `${guest.manifest.cmdline.none} caisson.debug`

const REFUSED: readonly [string, readonly Uint8Array[], string][] = [
  ['no initdata', [], 'initdata-missing'],
  ['two initdata disks, even equal ones', [initdataDisk(TOML), initdataDisk(TOML)], 'initdata-duplicate'],
  ['another magic', [initdataDisk(TOML, { magic: 'CSINITD2' })], 'initdata-invalid'],
  ['an initdata of no bytes', [initdataDisk('')], 'initdata-invalid'],
  ['a byte more than 1 MiB', [initdataDisk('x'.repeat((1 << 20) + 1))], 'initdata-invalid'],
  ['a length whose upper half is set', [initdataDisk(TOML, { length: (1n << 32n) + 8n })], 'initdata-invalid'],
  ['a disk shorter than it says', [initdataDisk(TOML, { length: 1000n })], 'initdata-invalid'],
  ['no TPM', [initdataDisk(TOML)], 'tpm-missing'],
]

for (const [what, initdata, code] of REFUSED) {
  test.serial(`on a measured platform ${what} ends the machine before the agent`, async (t) => {
    const { codes } = await boot(t, guest, { commandLine: tpmLine(), initdata })
    t.deepEqual(codes, ['init-start', code, 'poweroff'])
  })
}

test.serial('a command line that names no platform, or two, is refused', async (t) => {
  for (const platform of ['', 'caisson.platform=tpm caisson.platform=none', 'caisson.platform=tpm2']) {
    const commandLine = tpmLine().replace('caisson.platform=tpm', platform)
    t.deepEqual((await boot(t, guest, { commandLine })).codes, ['init-start', 'platform-unknown', 'poweroff'])
  }
})

test.serial('PCR 8 holds the digest of exactly the bytes that the agent finds', async (t) => {
  const tpm = await softwareTpm(t, 'sha256')
  const commandLine = `${tpmLine()} caisson.debug`
  const { codes, probe } = await boot(t, guest, {
    commandLine,
    initdata: [initdataDisk(TOML)],
    qemu: [...FIRMWARE, ...tpm],
  })
  t.deepEqual(codes, ['init-start', 'initdata-measured', 'agent-start', 'agent-ready', 'poweroff'])
  t.is(probe?.pcr8, extendedFromZero(TOML))
  t.is(probe?.initdata, TOML)
  t.is(probe?.mode, '400')
})

test.serial('a TPM without a SHA-256 bank is refused, although it takes the extend silently', async (t) => {
  const tpm = await softwareTpm(t, 'sha384')
  const { codes } = await boot(t, guest, { commandLine: tpmLine(), initdata: [initdataDisk(TOML)], qemu: tpm })
  t.deepEqual(codes, ['init-start', 'tpm-bank-missing', 'poweroff'])
})

test.serial('the agent gets a clean environment, a read-only root, and no core dumps', async (t) => {
  const { codes, probe } = await boot(t, guest, { commandLine: noneLine(), initdata: [initdataDisk(TOML)] })
  t.deepEqual(codes, ['init-start', 'initdata-unmeasured', 'agent-start', 'agent-ready', 'poweroff'])
  t.deepEqual(probe?.environment, { PATH: '/usr/bin:/usr/sbin', HOME: '/run', LANG: 'C' })
  t.deepEqual(probe?.writable, [])
  t.is(probe?.coreLimit, '0')
  t.is(probe?.kptrRestrict, '2')
  t.is(probe?.initdata, TOML)
})

test.serial('without caisson.debug the host sees codes and nothing that the agent prints', async (t) => {
  const { codes, console, probe } = await boot(t, guest, { commandLine: guest.manifest.cmdline.none })
  t.deepEqual(codes, ['init-start', 'agent-start', 'agent-ready', 'poweroff'])
  t.is(probe, undefined)
  t.notRegex(console, /probe/)
})

test.serial('an agent that ends with a failure is reported dead', async (t) => {
  const { codes } = await boot(t, guest, { commandLine: noneLine(), initdata: [initdataDisk('exit 3')] })
  t.deepEqual(codes.slice(-3), ['agent-ready', 'agent-died', 'poweroff'])
})

test.serial('orphaned processes are collected', async (t) => {
  const { probe } = await boot(t, guest, { commandLine: noneLine(), initdata: [initdataDisk('orphan')] })
  t.is(probe?.orphansLeft, 0)
})

test.serial('one flipped bit in the root file system stops the kernel before PID 1', async (t) => {
  const root = join(await scratchFolder(t), 'root.img')
  await copyFile(guest.rootPath, root)
  const file = await open(root, 'r+')
  // The superblock of erofs, which every mount reads.
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, 1024 + 100)
  await file.write(Buffer.from([(buffer[0] ?? 0) ^ 1]), 0, 1, 1024 + 100)
  await file.close()
  const { codes } = await boot(t, guest, { commandLine: noneLine(), root })
  t.deepEqual(codes, [])
})
