import test from 'ava'
import { parseGuestManifest } from '#guest/build/guest-image'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

const digest = 'a'.repeat(64)
const GOOD = {
  version: 1,
  kernel: { file: 'bzImage', size: 6, sha256: digest, source: 'linux 1', sourceSha256: digest, compiler: 'gcc' },
  root: { file: 'root.img', size: 4, sha256: digest, rootHash: digest, salt: digest, dataBlocks: 1, hashOffset: 4096 },
  cmdline: { tpm: 'a', none: 'b' },
  packages: [{ kind: 'debian', name: 'crun', version: '1', sha256: digest }],
}

test('a manifest names files of its own directory and digests, or is refused', (t) => {
  t.is(parseGuestManifest(JSON.stringify(GOOD)).version, 1)
  refusesOrKeeps(t, damaged(JSON.stringify(GOOD)), parseGuestManifest, ({ kernel, root }) =>
    [kernel, root].every(({ file, sha256 }) => !file.includes('/') && file !== '' && /^[0-9a-f]{64}$/.test(sha256)),
  )
})
