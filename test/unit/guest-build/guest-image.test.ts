import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type GuestManifest, loadGuest, parseGuestManifest } from '#guest/build/guest-image'
import { CaissonError } from '#protocol/errors'

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')

const MANIFEST: GuestManifest = {
  version: 1,
  kernel: {
    file: 'bzImage',
    size: 6,
    sha256: sha256('kernel'),
    source: 'linux-source 1',
    sourceSha256: sha256('source'),
    compiler: 'gcc',
  },
  root: {
    file: 'root.img',
    size: 4,
    sha256: sha256('root'),
    rootHash: sha256('tree'),
    salt: sha256('salt'),
    dataBlocks: 1,
    hashOffset: 4096,
  },
  cmdline: { tpm: 'a', none: 'b' },
  packages: [{ kind: 'debian', name: 'crun', version: '1', sha256: sha256('crun') }],
}

async function guestDirectory(t: ExecutionContext, files: Record<string, string>): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'caisson-test-'))
  t.teardown(() => rm(directory, { recursive: true }))
  for (const [name, content] of Object.entries(files)) await writeFile(join(directory, name), content)
  return directory
}

const FILES = { 'guest.json': JSON.stringify(MANIFEST), bzImage: 'kernel', 'root.img': 'root' }

test('a built guest is opened with the paths of its files', async (t) => {
  const directory = await guestDirectory(t, FILES)
  const guest = await loadGuest(directory)
  t.is(guest.kernelPath, join(directory, 'bzImage'))
  t.is(guest.rootPath, join(directory, 'root.img'))
  t.deepEqual(guest.manifest, MANIFEST)
})

for (const file of ['bzImage', 'root.img']) {
  test(`a guest whose ${file} was changed since it was built is refused`, async (t) => {
    const directory = await guestDirectory(t, { ...FILES, [file]: 'other' })
    const error = await t.throwsAsync(loadGuest(directory), { instanceOf: CaissonError })
    t.is(error?.code, 'ERR_GUEST_CHANGED')
  })
}

test('a directory without a manifest is not a guest', async (t) => {
  const error = await t.throwsAsync(loadGuest(await guestDirectory(t, {})), { instanceOf: CaissonError })
  t.is(error?.code, 'ERR_GUEST_NOT_BUILT')
})

const BROKEN: readonly [string, unknown][] = [
  ['of another version', { ...MANIFEST, version: 2 }],
  ['whose kernel lies elsewhere', { ...MANIFEST, kernel: { ...MANIFEST.kernel, file: '../bzImage' } }],
  ['without a root hash', { ...MANIFEST, root: { ...MANIFEST.root, rootHash: undefined } }],
  ['without a command line for a platform', { ...MANIFEST, cmdline: { tpm: 'a' } }],
  ['that is a list', []],
]

for (const [what, manifest] of BROKEN) {
  test(`a manifest ${what} is refused`, (t) => {
    const error = t.throws(() => parseGuestManifest(JSON.stringify(manifest)), { instanceOf: CaissonError })
    t.is(error?.code, 'ERR_GUEST_MANIFEST')
  })
}

test('a manifest cut short anywhere is refused', (t) => {
  const text = FILES['guest.json']
  for (let length = 0; length < text.length; length++) {
    t.throws(() => parseGuestManifest(text.slice(0, length)), { instanceOf: CaissonError })
  }
})
