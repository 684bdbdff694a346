/**
 * Debian packages of another suite, downloaded and verified by apt in a private configuration: its own source list,
 * package lists and (empty) status, so the machine's own packages are neither asked nor touched. apt checks the
 * archive's signature with Debian's keyring and each package against the signed index.
 *
 * The mirror is the one this machine already uses; no host name is written here.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { errorText, UnavailableError } from '#protocol/errors'

const run = promisify(execFile)

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'

/** A package as the suite serves it now. */
export interface ServedPackage {
  readonly name: string
  readonly version: string
  /** Lower-case hex of the .deb file, from the signed index. */
  readonly sha256: string
}

/** A private apt for one suite; `await using` removes its directory. */
export class SuiteApt implements AsyncDisposable {
  readonly #directory: string
  readonly #environment: NodeJS.ProcessEnv

  private constructor(directory: string) {
    this.#directory = directory
    this.#environment = { PATH: process.env.PATH, LC_ALL: 'C', APT_CONFIG: join(directory, 'apt.conf') }
  }

  /**
   * Fetches the suite's package index. `evenExpired`: also from a mirror that stands still, whose signed index is past its
   * date; only where the caller pins digests, since such an index may be an old one played back. Throws ERR_APT_KEYRING,
   * ERR_APT_NO_MIRROR or, when no mirror answers with a validly signed index, ERR_APT_UPDATE.
   */
  static async open(suite: string, options: { readonly evenExpired?: boolean } = {}): Promise<SuiteApt> {
    if (!existsSync(KEYRING)) {
      throw new UnavailableError('ERR_APT_KEYRING', `Debian's archive keyring is not installed (${KEYRING})`, {
        hint: 'apt-get install debian-archive-keyring',
      })
    }
    const mirrors = await debianMirrors()
    const directory = await mkdtemp(join(tmpdir(), 'caisson-apt-'))
    const apt = new SuiteApt(directory)
    try {
      await apt.#configure(options.evenExpired === true)
      await apt.#update(suite, mirrors)
    } catch (error) {
      await apt[Symbol.asyncDispose]()
      throw error
    }
    return apt
  }

  /** What the suite serves under these names; names it does not know are absent. */
  async served(names: readonly string[]): Promise<ReadonlyMap<string, ServedPackage>> {
    const found = new Map<string, ServedPackage>()
    if (names.length === 0) return found
    const { stdout } = await this.#apt('apt-cache', ['show', '--no-all-versions', ...names]).catch(() => ({
      stdout: '',
    }))
    for (const stanza of stdout.split('\n\n')) {
      const field = (key: string) => new RegExp(`^${key}: (.+)$`, 'm').exec(stanza)?.[1]
      const [name, version, sha256] = [field('Package'), field('Version'), field('SHA256')]
      if (name !== undefined && version !== undefined && sha256 !== undefined)
        found.set(name, { name, version, sha256 })
    }
    return found
  }

  /** Downloads one version into `file`. The caller compares the digest with what it pinned. Throws ERR_APT_DOWNLOAD. */
  async download(name: string, version: string, file: string): Promise<void> {
    const folder = await mkdtemp(join(this.#directory, 'get-'))
    try {
      await this.#apt('apt-get', ['download', `${name}=${version}`], folder)
      const [downloaded] = await readdir(folder)
      if (downloaded === undefined) throw new Error('apt-get wrote no file')
      // Rename within the target's folder, so that nobody sees half a package; the temporary one may be another disk.
      const partial = `${file}.${process.pid}.part`
      await writeFile(partial, await readFile(join(folder, downloaded)))
      await rename(partial, file)
    } catch (cause) {
      throw new UnavailableError('ERR_APT_DOWNLOAD', `${name} ${version} could not be downloaded: ${lastLine(cause)}`, {
        hint: 'Check the network and the apt sources of this machine.',
        cause,
      })
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true })
  }

  async #configure(evenExpired: boolean): Promise<void> {
    const folders = ['state/lists/partial', 'cache/archives/partial', 'etc/parts', 'etc/preferences.d', 'etc/sources.d']
    for (const folder of folders) await mkdir(join(this.#directory, folder), { recursive: true })
    await writeFile(join(this.#directory, 'state/status'), '')
    // Proxies are the machine's business; everything else it configured (hooks, trust) stays out.
    const { stdout } = await run('apt-config', ['dump'])
    const proxies = stdout.split('\n').filter((line) => /^Acquire::https?::/.test(line))
    const d = this.#directory
    const settings = {
      'Dir::State': join(d, 'state'),
      'Dir::State::status': join(d, 'state/status'),
      'Dir::Cache': join(d, 'cache'),
      'Dir::Etc': join(d, 'etc'),
      'Dir::Etc::parts': join(d, 'etc/parts'),
      'Dir::Etc::sourceparts': join(d, 'etc/sources.d'),
      'Dir::Etc::preferencesparts': join(d, 'etc/preferences.d'),
      'APT::Architecture': 'amd64',
      'APT::Sandbox::User': '',
      'Acquire::Languages': 'none',
      'Acquire::Retries': '2',
      'Acquire::AllowInsecureRepositories': 'false',
      'Acquire::Check-Valid-Until': String(!evenExpired),
    }
    const lines = Object.entries(settings).map(([key, value]) => `${key} "${value}";`)
    await writeFile(join(d, 'apt.conf'), [...lines, 'APT::Architectures { "amd64"; };', ...proxies, ''].join('\n'))
  }

  async #update(suite: string, mirrors: readonly string[]): Promise<void> {
    const failures: string[] = []
    for (const mirror of mirrors) {
      const source = `deb [arch=amd64 signed-by=${KEYRING}] ${mirror} ${suite} main\n`
      await writeFile(join(this.#directory, 'etc/sources.list'), source)
      try {
        await this.#apt('apt-get', ['update', '--error-on=any'])
        return
      } catch (error) {
        failures.push(lastLine(error))
      }
    }
    throw new UnavailableError(
      'ERR_APT_UPDATE',
      `No mirror of this machine serves Debian ${suite}: ${failures.join('; ')}`,
      {
        hint: 'Check the network, and that the first Debian mirror in the apt sources carries all suites.',
      },
    )
  }

  #apt(program: string, args: readonly string[], cwd = this.#directory): Promise<{ stdout: string; stderr: string }> {
    return run(program, [...args], { cwd, env: this.#environment, maxBuffer: 16 << 20 })
  }
}

/** Base addresses of the mirrors that this machine's own release comes from. */
async function debianMirrors(): Promise<readonly string[]> {
  const release = await readFile('/etc/os-release', 'utf8').catch(() => '')
  const codename = /^VERSION_CODENAME=(\S+)$/m.exec(release)?.[1]
  const { stdout } = await run('apt-get', ['indextargets', '--format', '$(SITE) $(RELEASE) $(COMPONENT)']).catch(
    (cause: unknown) => {
      throw new UnavailableError('ERR_APT_NO_MIRROR', `apt is not usable: ${errorText(cause)}`, { cause })
    },
  )
  const mirrors = stdout
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, suite, component]) => component === 'main' && (suite === codename || suite === 'stable'))
    .map(([site = '']) => site)
  if (mirrors.length === 0) {
    throw new UnavailableError(
      'ERR_APT_NO_MIRROR',
      `The apt sources of this machine name no mirror of ${codename ?? 'Debian'}`,
      {
        hint: 'Add a Debian mirror to /etc/apt/sources.list.d.',
      },
    )
  }
  return [...new Set(mirrors)]
}

/** The last line a failed program wrote: apt puts the reason there. */
function lastLine(error: unknown): string {
  const stderr = error instanceof Error && 'stderr' in error ? String(error.stderr) : ''
  return stderr.trim().split('\n').at(-1) || errorText(error)
}
