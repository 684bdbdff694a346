/**
 * What a build leaves in its directory: `bzImage`, `root.img` (erofs with its verity tree behind it) and `guest.json`,
 * which names both by digest and has the exact kernel command lines. Whoever launches or measures a guest starts here.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MalformedError, UnavailableError, UnverifiedError } from '#protocol/errors'
import { fileSha256 } from '#tools/cache/entry'

export const MANIFEST_VERSION = 1

/** Platforms a guest can be started on; each has its own measured command line. */
export type GuestPlatform = 'tpm' | 'none'

export interface GuestManifest {
  readonly version: typeof MANIFEST_VERSION
  readonly kernel: {
    readonly file: string
    readonly size: number
    readonly sha256: string
    /** Debian package, version and tarball it was built from, and the compiler. */
    readonly source: string
    readonly sourceSha256: string
    readonly compiler: string
  }
  readonly root: {
    readonly file: string
    /** Bytes, tree included. */
    readonly size: number
    readonly sha256: string
    /** dm-verity: SHA-256, blocks of 4096 bytes, no superblock. Root hash and salt are lower-case hex. */
    readonly rootHash: string
    readonly salt: string
    readonly dataBlocks: number
    /** Byte offset of the tree in the file. */
    readonly hashOffset: number
  }
  readonly cmdline: Readonly<Record<GuestPlatform, string>>
  /** Every foreign thing inside, as it really was used. */
  readonly packages: readonly { kind: 'debian' | 'npm'; name: string; version: string; sha256: string }[]
}

export interface GuestImage {
  readonly directory: string
  readonly kernelPath: string
  readonly rootPath: string
  readonly manifest: GuestManifest
}

/**
 * Opens a built guest and hashes its files again. Throws ERR_GUEST_NOT_BUILT when the directory has no manifest,
 * ERR_GUEST_MANIFEST when the manifest is not one, ERR_GUEST_CHANGED when a file is not the one that was built.
 */
export async function loadGuest(directory: string): Promise<GuestImage> {
  const text = await readFile(join(directory, 'guest.json'), 'utf8').catch((cause: unknown) => {
    throw new UnavailableError('ERR_GUEST_NOT_BUILT', `${directory} has no guest.json`, {
      hint: 'Build the guest: caisson guest build',
      cause,
    })
  })
  const manifest = parseGuestManifest(text)
  const image = {
    directory,
    kernelPath: join(directory, manifest.kernel.file),
    rootPath: join(directory, manifest.root.file),
    manifest,
  }
  await requireDigest(image.kernelPath, manifest.kernel.sha256)
  await requireDigest(image.rootPath, manifest.root.sha256)
  return image
}

/** Throws ERR_GUEST_MANIFEST. */
export function parseGuestManifest(text: string): GuestManifest {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw refused('is not JSON', cause)
  }
  if (!isManifest(value)) throw refused(`lacks a member, or is not version ${MANIFEST_VERSION}`)
  return value
}

function isManifest(value: unknown): value is GuestManifest {
  const manifest = record(value)
  const [kernel, root, cmdline] = [record(manifest.kernel), record(manifest.root), record(manifest.cmdline)]
  return (
    manifest.version === MANIFEST_VERSION &&
    [kernel.file, root.file].every((file) => typeof file === 'string' && /^[A-Za-z0-9._-]+$/.test(file)) &&
    [kernel.sha256, kernel.sourceSha256, root.sha256, root.rootHash, root.salt].every(isSha256) &&
    [kernel.size, root.size, root.dataBlocks, root.hashOffset].every(Number.isSafeInteger) &&
    [kernel.source, kernel.compiler, cmdline.tpm, cmdline.none].every((text) => typeof text === 'string') &&
    Array.isArray(manifest.packages) &&
    manifest.packages.every((each) => isSha256(record(each).sha256))
  )
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}

const isSha256 = (value: unknown): boolean => typeof value === 'string' && /^[0-9a-f]{64}$/.test(value)

async function requireDigest(file: string, expected: string): Promise<void> {
  const actual = await fileSha256(file).catch(() => 'no file')
  if (actual !== expected) {
    throw new UnverifiedError('ERR_GUEST_CHANGED', `${file} has SHA-256 ${actual}; built was ${expected}`, {
      hint: 'Build the guest again: caisson guest build --force',
    })
  }
}

const refused = (why: string, cause?: unknown) =>
  new MalformedError('ERR_GUEST_MANIFEST', `guest.json ${why}`, {
    hint: 'Build the guest again: caisson guest build --force',
    cause,
  })
