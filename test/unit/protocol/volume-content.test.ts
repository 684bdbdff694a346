import test from 'ava'
import fc from 'fast-check'
import { nodeCrypto } from '#protocol/node/crypto'
import {
  checkVolumeFiles,
  MAX_VOLUME_BYTES,
  MAX_VOLUME_FILES,
  parseVolumeName,
  parseVolumePath,
  volumeDigest,
} from '#protocol/volume-content'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

const file = (path: string, text = '') => ({ path, content: new TextEncoder().encode(text) })
const malformed = { code: 'ERR_VOLUME_CONTENT' }

test('a path in a volume has plain names that stay below it, or is refused', (t) => {
  const names = fc.array(fc.oneof(fc.constantFrom('..', '.', '', '..data', 'a', '..x', 'a\0'), fc.string()), {
    maxLength: 10,
  })
  const paths = fc.oneof(
    damaged('conf.d/app.yaml'),
    names.map((parts) => parts.join('/')),
  )
  refusesOrKeeps(
    t,
    paths,
    parseVolumePath,
    (parts, path) =>
      parts.join('/') === path && parts.every((part) => /^[-.\w]+$/.test(part) && !/^\.\.|^\.$/.test(part)),
  )
  t.deepEqual(parseVolumePath('conf.d/.hidden'), ['conf.d', '.hidden'])
})

test('the name of a volume is a DNS label, or refused', (t) => {
  refusesOrKeeps(
    t,
    damaged('app-config'),
    parseVolumeName,
    (name, input) => name === input && /^[-a-z0-9]{1,63}$/.test(name),
  )
})

for (const [what, files] of Object.entries({
  'a file twice': [file('a'), file('a')],
  'a name that is a file and a directory': [file('a'), file('a/b')],
  'a file outside': [file('../a')],
  'the writer’s own name': [file('..data')],
  'too many files': Array.from({ length: MAX_VOLUME_FILES + 1 }, (_, index) => file(`f${index}`)),
  'too many bytes': [{ path: 'a', content: new Uint8Array(MAX_VOLUME_BYTES + 1) }],
})) {
  test(`the content of a volume with ${what} is refused`, (t) => {
    t.throws(() => checkVolumeFiles(files), malformed)
  })
}

test('the digest of a volume depends on names and bytes, and not on their order', (t) => {
  const digest = (...files: ReturnType<typeof file>[]) => volumeDigest(nodeCrypto, files)
  t.is(digest(file('a', '1'), file('b', '2')), digest(file('b', '2'), file('a', '1')))
  const others = [
    digest(),
    digest(file('a', '1')),
    digest(file('a', '2')),
    digest(file('b', '1')),
    digest(file('a', '1'), file('b', '')),
  ]
  t.is(new Set(others).size, others.length)
  t.notThrows(() => checkVolumeFiles([]))
})

test('the digest of a volume is the documented one', (t) => {
  // printf '{"a":"sha256:%s"}' "$(printf 1 | sha256sum | cut -c-64)" | sha256sum
  t.is(
    volumeDigest(nodeCrypto, [file('a', '1')]),
    'sha256:914d9303cb6038cadb4a524a4d10a24a32ad85e24f702c2143bdb58b90703674',
  )
})
