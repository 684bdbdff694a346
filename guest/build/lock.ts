/**
 * `guest/lock.json`: version and SHA-256 of every foreign thing that enters the guest. A guest is reproducible from this
 * file, the repository and the compiler that `guest.json` names.
 */
import { MalformedError } from '#protocol/errors'
import type { DebianPin } from '#tools/debian/packages'

/** A file that is taken from an npm package as it is. */
export interface NpmFilePin {
  readonly name: string
  readonly version: string
  readonly file: string
  readonly sha256: string
}

/** An npm package whose modules are bundled into the agent; the digest is over all its files (`npm-packages.ts`). */
export interface NpmPackagePin {
  readonly name: string
  readonly version: string
  readonly sha256: string
}

export interface KernelPin {
  /** Debian package, and the version of it that carries the tarball. */
  readonly package: string
  readonly version: string
  /** Name of the tarball under /usr/src, and its digest. */
  readonly file: string
  readonly sha256: string
}

export interface GuestLock {
  readonly debian: { readonly suite: string; readonly packages: readonly DebianPin[] }
  readonly node: NpmFilePin
  readonly bundled: readonly NpmPackagePin[]
  readonly kernel: KernelPin
}

/** Throws ERR_GUEST_LOCK, naming the member that is missing, unknown or of the wrong form. */
export function parseGuestLock(text: string): GuestLock {
  const root = members(parseJson(text), 'lock', ['debian', 'node', 'bundled', 'kernel'])
  const debian = members(root.debian, 'debian', ['suite', 'packages'])
  const node = members(root.node, 'node', ['name', 'version', 'file', 'sha256'])
  const kernel = members(root.kernel, 'kernel', ['package', 'version', 'file', 'sha256'])
  const lock: GuestLock = {
    debian: {
      suite: string(debian.suite, 'debian.suite', /^[a-z]+$/),
      packages: list(debian.packages, 'debian.packages').map((value, index) => pin(value, `debian.packages[${index}]`)),
    },
    node: nodeFile(node),
    bundled: list(root.bundled, 'bundled').map((value, index) => pin(value, `bundled[${index}]`)),
    kernel: {
      package: string(kernel.package, 'kernel.package', NAME),
      version: string(kernel.version, 'kernel.version', VERSION),
      file: string(kernel.file, 'kernel.file', FILE),
      sha256: string(kernel.sha256, 'kernel.sha256', SHA256),
    },
  }
  for (const pins of [lock.debian.packages, lock.bundled]) refuseRepeats(pins)
  return lock
}

/** The text of a lock file: `parseGuestLock` reads it back, and a diff of two shows one line per changed value. */
export function formatGuestLock(lock: GuestLock): string {
  const byName = <Pin extends { name: string }>(pins: readonly Pin[]) =>
    pins.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  const sorted = {
    ...lock,
    debian: { ...lock.debian, packages: byName(lock.debian.packages) },
    bundled: byName(lock.bundled),
  }
  return `${JSON.stringify(sorted, null, 2)}\n`
}

const NAME = /^(@[a-z0-9-]+\/)?[a-z0-9][a-z0-9.+-]*$/
const VERSION = /^[0-9][0-9A-Za-z.+:~-]*$/
const SHA256 = /^[0-9a-f]{64}$/
const FILE = /^[a-z0-9][a-z0-9./-]*$/

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new MalformedError('ERR_GUEST_LOCK', 'guest/lock.json is not JSON', { cause })
  }
}

function members(value: unknown, where: string, names: readonly string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw refused(where, 'an object', value)
  const found: Record<string, unknown> = { ...value }
  for (const name of Object.keys(found)) if (!names.includes(name)) throw refused(`${where}.${name}`, 'absent', name)
  return found
}

function list(value: unknown, where: string): readonly unknown[] {
  if (!Array.isArray(value)) throw refused(where, 'a list', value)
  return value
}

function string(value: unknown, where: string, form: RegExp): string {
  if (typeof value !== 'string' || !form.test(value)) throw refused(where, `text of the form ${form.source}`, value)
  return value
}

function identity(value: Record<string, unknown>, where: string): NpmPackagePin {
  return {
    name: string(value.name, `${where}.name`, NAME),
    version: string(value.version, `${where}.version`, VERSION),
    sha256: string(value.sha256, `${where}.sha256`, SHA256),
  }
}

function nodeFile(value: Record<string, unknown>): NpmFilePin {
  const { name, version, sha256 } = identity(value, 'node')
  return { name, version, file: string(value.file, 'node.file', FILE), sha256 }
}

function pin(value: unknown, where: string): NpmPackagePin {
  return identity(members(value, where, ['name', 'version', 'sha256']), where)
}

function refuseRepeats(pins: readonly { name: string }[]): void {
  const names = pins.map((each) => each.name)
  const repeated = names.find((name, index) => names.indexOf(name) !== index)
  if (repeated !== undefined) throw refused(repeated, 'pinned once', repeated)
}

const refused = (where: string, wanted: string, value: unknown) =>
  new MalformedError('ERR_GUEST_LOCK', `guest/lock.json: ${where} must be ${wanted}, found ${JSON.stringify(value)}`, {
    hint: 'Restore the file from version control, or write it again with "node guest/build/main.ts --relock".',
  })
