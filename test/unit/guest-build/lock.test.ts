import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { formatGuestLock, parseGuestLock } from '#guest/build/lock'
import { MalformedError } from '#protocol/errors'
import { BUILD_PACKAGES, DEBIAN_FILES } from '../../../guest/rootfs/debian-files.ts'

const text = readFileSync(new URL('../../../guest/lock.json', import.meta.url), 'utf8')

/** The real lock with one member replaced. */
function changed(change: (lock: Record<string, Record<string, unknown>>) => void): string {
  const lock = JSON.parse(text)
  change(lock)
  return JSON.stringify(lock)
}

test('the lock in the repository is read, and written back as it is', (t) => {
  t.is(formatGuestLock(parseGuestLock(text)), text)
})

test('every Debian package that gives a file to the guest, or makes it, is pinned, and nothing else is', (t) => {
  t.deepEqual(
    parseGuestLock(text).debian.packages.map((pin) => pin.name),
    [...Object.keys(DEBIAN_FILES), ...BUILD_PACKAGES].sort(),
  )
})

const REFUSED: readonly [string, string][] = [
  ['text that is not JSON', text.slice(1)],
  ['an unknown member', changed((lock) => Object.assign(lock, { extra: 1 }))],
  ['a digest in upper case', changed((lock) => Object.assign(lock.node ?? {}, { sha256: 'A'.repeat(64) }))],
  ['a digest that is too short', changed((lock) => Object.assign(lock.kernel ?? {}, { sha256: 'a'.repeat(63) }))],
  ['a kernel tarball outside /usr/src', changed((lock) => Object.assign(lock.kernel ?? {}, { file: '../x' }))],
  ['an absolute file name', changed((lock) => Object.assign(lock.node ?? {}, { file: '/bin/node' }))],
  ['no list of packages', changed((lock) => Object.assign(lock.debian ?? {}, { packages: {} }))],
  ['a package name that is an option', withPackage({ name: '-o', version: '1', sha256: 'a'.repeat(64) })],
  ['a package that is pinned twice', withPackage({ name: 'crun', version: '1', sha256: 'a'.repeat(64) })],
  ['a version with a space', withPackage({ name: 'x1', version: '1 2', sha256: 'a'.repeat(64) })],
]

function withPackage(pin: object): string {
  return changed((lock) => {
    const debian = lock.debian ?? {}
    const packages = Array.isArray(debian.packages) ? debian.packages : []
    debian.packages = [...packages, pin]
  })
}

for (const [what, lock] of REFUSED) {
  test(`a lock with ${what} is refused`, (t) => {
    t.is(t.throws(() => parseGuestLock(lock), { instanceOf: MalformedError })?.code, 'ERR_GUEST_LOCK')
  })
}

test('any other text is refused with the same code, never with a crash', (t) => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (other) => {
      const error = t.throws(() => parseGuestLock(other), { instanceOf: MalformedError })
      return error?.code === 'ERR_GUEST_LOCK'
    }),
    { numRuns: 200 },
  )
})

test('a lock cut short anywhere is refused', (t) => {
  // Only the closing newline is not part of the document.
  for (let length = 0; length < text.trimEnd().length; length += 7) {
    t.throws(() => parseGuestLock(text.slice(0, length)), { instanceOf: MalformedError })
  }
})
