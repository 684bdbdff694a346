/** Installed npm packages as the lock pins them: version, and one digest over all files of the package. */
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { UnavailableError, UnverifiedError } from '#protocol/errors'
import { fileSha256 } from '#tools/cache/entry'
import type { NpmPackagePin } from './lock.ts'

/** Throws ERR_NPM_PACKAGE when it is not installed. `root` is the repository. */
export async function installedPackage(root: string, name: string): Promise<NpmPackagePin> {
  const folder = join(root, 'node_modules', name)
  const version = await installedVersion(root, name)
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const files = entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .filter((file) => !file.startsWith('node_modules/'))
    .sort()
  const hash = createHash('sha256')
  for (const file of files) hash.update(`${await fileSha256(join(folder, file))}  ${file}\n`)
  return { name, version, sha256: hash.digest('hex') }
}

/** Throws ERR_NPM_PACKAGE. */
export async function installedVersion(root: string, name: string): Promise<string> {
  try {
    const manifest: unknown = JSON.parse(await readFile(join(root, 'node_modules', name, 'package.json'), 'utf8'))
    if (typeof manifest === 'object' && manifest !== null && 'version' in manifest) return String(manifest.version)
    throw new Error('package.json names no version')
  } catch (cause) {
    throw new UnavailableError('ERR_NPM_PACKAGE', `npm package ${name} is not installed`, { hint: 'npm ci', cause })
  }
}

/**
 * Throws ERR_NPM_UNPINNED for a package that is not in the lock, or not as it is in the lock: what enters the measured
 * guest changes only together with guest/lock.json.
 */
export function requirePinned(installed: NpmPackagePin, pins: readonly NpmPackagePin[]): void {
  const pin = pins.find((each) => each.name === installed.name)
  if (pin?.version === installed.version && pin.sha256 === installed.sha256) return
  const pinned = pin === undefined ? 'not pinned' : `pinned as ${pin.version} (${pin.sha256})`
  throw new UnverifiedError(
    'ERR_NPM_UNPINNED',
    `npm package ${installed.name} ${installed.version} (${installed.sha256}) enters the guest but is ${pinned}`,
    { hint: 'npm ci restores the pinned version; after a wanted change run "node guest/build/main.ts --relock".' },
  )
}
