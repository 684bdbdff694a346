import { writeFile } from 'node:fs/promises'
import test, { type ExecutionContext } from 'ava'
import { CaissonError } from '#protocol/errors'
import { currentPins, obtainPackages } from '#tools/debian/packages'
import { fileSha256 } from '../../../tools/cache/entry.ts'
import { scratchFolder } from './machine.ts'

const SUITE = 'trixie'
/** Small, and without dependencies that matter here. */
const NAME = 'libyajl2'

/** An empty cache of the test's own. */
async function privateCache(t: ExecutionContext): Promise<void> {
  process.env.XDG_CACHE_HOME = await scratchFolder(t)
}

async function currentPin() {
  const [pin] = await currentPins(SUITE, [NAME])
  if (pin === undefined) throw new Error('no pin')
  return pin
}

test.serial('a pinned package is downloaded once and has the pinned digest', async (t) => {
  await privateCache(t)
  const pin = await currentPin()
  const [first] = await obtainPackages(SUITE, [pin])
  t.is(await fileSha256(first?.file ?? ''), pin.sha256)
  const told: string[] = []
  const [second] = await obtainPackages(SUITE, [pin], { onProgress: (text) => told.push(text) })
  t.is(second?.file, first?.file)
  t.deepEqual(told, [])
})

test.serial('a package that was changed in the cache is downloaded again', async (t) => {
  await privateCache(t)
  const pin = await currentPin()
  const [first] = await obtainPackages(SUITE, [pin])
  await writeFile(first?.file ?? '', 'other bytes')
  const [second] = await obtainPackages(SUITE, [pin])
  t.is(await fileSha256(second?.file ?? ''), pin.sha256)
})

test.serial('a version that the suite no longer serves is replaced, and every run says so', async (t) => {
  await privateCache(t)
  const current = await currentPin()
  const old = { name: NAME, version: '0.0.1-1', sha256: 'ab'.repeat(32) }
  for (const _ of ['fetched', 'cached']) {
    const warnings: string[] = []
    const [obtained] = await obtainPackages(SUITE, [old], { onWarning: (text) => warnings.push(text) })
    t.like(obtained, current)
    t.is(warnings.length, 1)
    for (const part of ['RE-LOCKED', old.version, old.sha256, current.version, current.sha256]) {
      t.true(warnings[0]?.includes(part), part)
    }
  }
})

test.serial('the pinned version with other bytes is refused, not re-locked', async (t) => {
  await privateCache(t)
  const pin = { ...(await currentPin()), sha256: 'cd'.repeat(32) }
  const error = await t.throwsAsync(obtainPackages(SUITE, [pin]), { instanceOf: CaissonError })
  t.is(error?.code, 'ERR_PACKAGE_DIGEST')
})

test.serial('a package that the suite does not have is named', async (t) => {
  await privateCache(t)
  const pin = { name: 'caisson-no-such-package', version: '1', sha256: 'ab'.repeat(32) }
  const error = await t.throwsAsync(obtainPackages(SUITE, [pin]), { instanceOf: CaissonError })
  t.is(error?.code, 'ERR_PACKAGE_GONE')
  t.true(error?.message.includes(pin.name))
})

test.serial('a suite that no mirror serves is reported as such', async (t) => {
  await privateCache(t)
  const error = await t.throwsAsync(currentPins('nosuchsuite', [NAME]), { instanceOf: CaissonError })
  t.is(error?.code, 'ERR_APT_UPDATE')
})
