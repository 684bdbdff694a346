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

/** What apt would install now: per item the first of several names that this suite knows. */
export async function findPackages(wanted: readonly (readonly string[])[]): Promise<readonly DebianPackage[]> {
  return await Promise.all(
    wanted.map(async (names) => {
      for (const name of names) {
        const stanza = await run('apt-cache', ['show', '--no-all-versions', name]).then(
          ({ stdout }) => stdout,
          () => '',
        )
        const version = /^Version: (.+)$/m.exec(stanza)?.[1]
        const sha256 = /^SHA256: ([0-9a-f]{64})$/m.exec(stanza)?.[1]
        if (version !== undefined && sha256 !== undefined) return { name, version, sha256 }
      }
      throw unavailable(`apt knows no package ${names.join(' or ')}`)
    }),
  )
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
