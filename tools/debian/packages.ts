/**
 * Pinned Debian packages, from the cache or from the archive. A pin names version and SHA-256; what is used always has
 * the digest it is reported with. A version that the suite no longer serves is replaced by the current one, and the
 * caller is told.
 */
import { existsSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { UnavailableError, UnverifiedError } from '#protocol/errors'
import { fileSha256 } from '../cache/entry.ts'
import { cacheDirectory } from '../cache/location.ts'
import { SuiteApt } from './apt.ts'

export interface DebianPin {
  readonly name: string
  readonly version: string
  /** Lower-case hex of the .deb file. */
  readonly sha256: string
}

export interface ObtainedPackage extends DebianPin {
  /** Path of the .deb file in the cache. */
  readonly file: string
}

export interface ObtainOptions {
  /** Told about every pin that had to be replaced: old and new. */
  readonly onWarning?: (text: string) => void
  readonly onProgress?: (text: string) => void
  /** Take packages of a mirror that stands still; see `SuiteApt.open`. For tools of tests, never for the guest. */
  readonly evenExpired?: boolean
}

/**
 * The packages in the order of the pins. Throws ERR_PACKAGE_DIGEST when the archive serves other bytes under a pinned
 * version, ERR_PACKAGE_GONE when the suite has no such package, and what `SuiteApt` throws.
 */
export async function obtainPackages(
  suite: string,
  pins: readonly DebianPin[],
  options: ObtainOptions = {},
): Promise<readonly ObtainedPackage[]> {
  const known = await Promise.all(pins.map((pin) => fromCache(pin, options)))
  const missing = pins.filter((_, index) => known[index] === undefined)
  const fetched = missing.length === 0 ? new Map<string, ObtainedPackage>() : await fetchAll(suite, missing, options)
  return pins.map((pin, index) => {
    const found = known[index] ?? fetched.get(pin.name)
    if (found === undefined) throw gone(suite, pin.name)
    return found
  })
}

/** Today's versions of these packages. For re-locking. */
export async function currentPins(suite: string, names: readonly string[]): Promise<readonly DebianPin[]> {
  await using apt = await SuiteApt.open(suite)
  const served = await apt.served(names)
  return names.map((name) => {
    const found = served.get(name)
    if (found === undefined) throw gone(suite, name)
    return found
  })
}

async function fetchAll(suite: string, pins: readonly DebianPin[], options: ObtainOptions) {
  options.onProgress?.(`fetching ${pins.length} packages of Debian ${suite}`)
  await mkdir(folder(), { recursive: true })
  await using apt = await SuiteApt.open(suite, { evenExpired: options.evenExpired === true })
  const served = await apt.served(pins.map((pin) => pin.name))
  const result = new Map<string, ObtainedPackage>()
  for (const pin of pins) {
    const current = served.get(pin.name)
    if (current === undefined) throw gone(suite, pin.name)
    if (current.version === pin.version && current.sha256 !== pin.sha256) throw changed(pin, current.sha256)
    if (current.version !== pin.version) {
      options.onWarning?.(replaced(pin, current))
      await writeFile(replacementFile(pin), JSON.stringify(current))
    }
    const file = packageFile(current)
    await apt.download(current.name, current.version, file)
    const actual = await fileSha256(file)
    if (actual !== current.sha256) {
      await rm(file, { force: true })
      throw changed(current, actual)
    }
    result.set(pin.name, { ...current, file })
    options.onProgress?.(`fetched ${current.name} ${current.version}`)
  }
  return result
}

/** A pin whose replacement was fetched by an earlier run keeps that replacement, and the warning. */
async function fromCache(pin: DebianPin, options: ObtainOptions): Promise<ObtainedPackage | undefined> {
  if (await isStored(pin)) return { ...pin, file: packageFile(pin) }
  if (!existsSync(replacementFile(pin))) return undefined
  const replacement = parseReplacement(await readFile(replacementFile(pin), 'utf8'), pin.name)
  if (replacement === undefined || !(await isStored(replacement))) return undefined
  options.onWarning?.(replaced(pin, replacement))
  return { ...replacement, file: packageFile(replacement) }
}

async function isStored(pin: DebianPin): Promise<boolean> {
  return existsSync(packageFile(pin)) && (await fileSha256(packageFile(pin))) === pin.sha256
}

function parseReplacement(text: string, name: string): DebianPin | undefined {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null || !('version' in value) || !('sha256' in value)) return undefined
    return { name, version: String(value.version), sha256: String(value.sha256) }
  } catch {
    return undefined
  }
}

const folder = () => join(cacheDirectory(), 'debian')
const packageFile = (pin: DebianPin) => join(folder(), `${pin.sha256}.deb`)
const replacementFile = (pin: DebianPin) => join(folder(), `${pin.sha256}.replaced.json`)

const replaced = (from: DebianPin, to: DebianPin) =>
  `RE-LOCKED ${from.name}: pinned ${from.version} (${from.sha256}) is no longer served; using ${to.version} (${to.sha256})`

const gone = (suite: string, name: string) =>
  new UnavailableError('ERR_PACKAGE_GONE', `Debian ${suite} has no package ${name}`, {
    hint: 'The package was renamed or removed: change guest/lock.json.',
  })

const changed = (pin: DebianPin, actual: string) =>
  new UnverifiedError(
    'ERR_PACKAGE_DIGEST',
    `${pin.name} ${pin.version} has SHA-256 ${actual}, pinned is ${pin.sha256}`,
    { hint: 'A version never changes its bytes: suspect the mirror, and do not re-lock before you know why.' },
  )
