/** Debian packages of this machine's suite: which, where, and unpacked without being installed. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { UnavailableError } from '#protocol/errors'

const run = promisify(execFile)

export interface DebianPackage {
  readonly name: string
  readonly version: string
  readonly sha256: string
}

/**
 * What apt would install now: per item the first of several names that this suite knows. Machines whose package lists
 * were removed (containers often are) get them fetched once.
 */
export async function findPackages(wanted: readonly (readonly string[])[]): Promise<readonly DebianPackage[]> {
  const known = await describe(wanted.flat())
  const complete = wanted.every((names) => names.some((name) => known.has(name)))
  // Without the right to update, the error below says what to do.
  const again = complete
    ? known
    : await run('apt-get', ['update']).then(
        () => describe(wanted.flat()),
        () => known,
      )
  return wanted.map((names) => {
    const found = names.map((name) => again.get(name)).find((candidate) => candidate !== undefined)
    if (found === undefined) throw unavailable(`apt knows no package ${names.join(' or ')}`)
    return found
  })
}

/** One call for all names: each start of apt reads its whole cache. Unknown names are left out. */
async function describe(names: readonly string[]): Promise<ReadonlyMap<string, DebianPackage>> {
  const text = await run('apt-cache', ['show', '--no-all-versions', ...names]).then(
    ({ stdout }) => stdout,
    // apt-cache fails when it does not know one of the names, after it has described the others.
    (failure: { stdout?: string }) => failure.stdout ?? '',
  )
  const packages = text.split(/\n(?=Package: )/).map((stanza) => ({
    name: /^Package: (.+)$/m.exec(stanza)?.[1],
    version: /^Version: (.+)$/m.exec(stanza)?.[1],
    sha256: /^SHA256: ([0-9a-f]{64})$/m.exec(stanza)?.[1],
  }))
  const found = new Map<string, DebianPackage>()
  for (const { name, version, sha256 } of packages) {
    if (name !== undefined && version !== undefined && sha256 !== undefined) found.set(name, { name, version, sha256 })
  }
  return found
}

/** Downloads into `folder`, checks against apt's signed lists, unpacks all into one tree at `tree`. */
export async function unpackPackages(packages: readonly DebianPackage[], folder: string, tree: string): Promise<void> {
  const names = packages.map(({ name, version }) => `${name}=${version}`)
  try {
    // _apt, the user apt downloads as, may not enter this folder; what it downloads is hashed below in any case.
    await run('apt-get', ['download', '-o', 'APT::Sandbox::User=root', ...names], { cwd: folder })
  } catch (cause) {
    throw unavailable(`cannot download ${names.join(' ')}`, cause)
  }
  const files = (await readdir(folder)).filter((file) => file.endsWith('.deb'))
  for (const { name, sha256 } of packages) {
    const file = files.find((candidate) => candidate.startsWith(`${name}_`))
    const bytes = file === undefined ? new Uint8Array() : await readFile(join(folder, file))
    if (file === undefined || createHash('sha256').update(bytes).digest('hex') !== sha256) {
      throw unavailable(`${name}: what was downloaded is not what apt's lists name`)
    }
    await run('dpkg-deb', ['-x', join(folder, file), tree])
  }
}

function unavailable(message: string, cause?: unknown): UnavailableError {
  return new UnavailableError('ERR_DEBIAN_PACKAGES', message, {
    cause,
    hint: 'Run "apt-get update" and check the network.',
  })
}
