/**
 * Builds a small, real nginx image from Debian packages, as an OCI layout: the shared libraries that nginx loads (gzip),
 * nginx itself (zstd), configuration and page (gzip). The same packages give the same bytes; results are cached under
 * the XDG cache directory by the digest of everything that goes in.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, readlink, realpath, rename, rm, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { UnavailableError } from '#protocol/errors'
import { CONFIG, GROUP, NGINX_CONF, NSSWITCH, PAGE, PASSWD } from './content.ts'
import { type ImageSource, writeImageLayout } from './layout.ts'
import { findPackages, unpackPackages } from './packages.ts'
import type { TarEntry } from './tar.ts'

const run = promisify(execFile)

/** Alternatives are names in bookworm and in trixie. */
const PACKAGES = [
  ['nginx'],
  ['nginx-common'],
  ['libc6'],
  ['libcrypt1'],
  ['libpcre2-8-0'],
  ['libssl3', 'libssl3t64'],
  ['zlib1g'],
]

const LIBRARIES = 'usr/lib/x86_64-linux-gnu'
const LOADER = 'ld-linux-x86-64.so.2'

/** Answers with the layout's folder. Errors: ERR_DEBIAN_PACKAGES, ERR_NGINX_IMAGE. */
export async function buildNginxImage(options: { onProgress?: (line: string) => void } = {}): Promise<string> {
  const progress = options.onProgress ?? (() => {})
  const packages = await findPackages(PACKAGES)
  const recipe = await recipeDigest()
  const key = createHash('sha256')
    .update(JSON.stringify({ packages, recipe, node: process.versions.node }))
    .digest('hex')
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'caisson/nginx-image')
  const output = join(cache, key.slice(0, 32))
  if (existsSync(output)) {
    progress('nginx image: cached')
    return output
  }
  await mkdir(cache, { recursive: true })
  const scratch = await mkdtemp(join(cache, '.build-'))
  try {
    const debs = join(scratch, 'debs')
    const tree = join(scratch, 'tree')
    await mkdir(debs)
    progress(`nginx image: downloading ${packages.map(({ name, version }) => `${name} ${version}`).join(', ')}`)
    await unpackPackages(packages, debs, tree)
    progress('nginx image: writing layers')
    writeImageLayout(join(scratch, 'layout'), await imageFrom(tree))
    // Two builds at once make the same thing: whoever comes second keeps the first one's.
    await rename(join(scratch, 'layout'), output).catch((error: unknown) => {
      if (!existsSync(output)) throw error
    })
    return output
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

async function recipeDigest(): Promise<string> {
  const hash = createHash('sha256')
  for (const file of ['build.ts', 'content.ts', 'layout.ts', 'packages.ts', 'tar.ts']) {
    hash.update(await readFile(join(import.meta.dirname, file)))
  }
  return hash.digest('hex')
}

async function imageFrom(tree: string): Promise<ImageSource> {
  const directory = (path: string, mode = 0o755): TarEntry => ({ path, type: 'directory', mode })
  const symlink = (path: string, target: string): TarEntry => ({ path, type: 'symlink', mode: 0o777, target })
  const text = (path: string, content: string): TarEntry => {
    return { path, type: 'file', mode: 0o644, content: new TextEncoder().encode(content) }
  }
  const file = async (path: string, from: string, mode: number): Promise<TarEntry> => {
    return { path, type: 'file', mode, content: await readFile(from) }
  }
  const libraries = await neededLibraries(tree)
  const folders = [
    'dev',
    'etc',
    'proc',
    'root',
    'run',
    'sys',
    'usr',
    'usr/bin',
    'usr/lib',
    'usr/lib64',
    'usr/sbin',
    'var',
  ]
  const base: TarEntry[] = [
    ...folders.map((path) => directory(path, path === 'root' ? 0o700 : 0o755)),
    directory('tmp', 0o1777),
    directory('run/secrets'),
    directory('var/cache'),
    directory('var/cache/nginx'),
    directory(LIBRARIES),
    ...['bin', 'lib', 'lib64', 'sbin'].map((name) => symlink(name, `usr/${name}`)),
    symlink('var/run', '../run'),
    symlink(`usr/lib64/${LOADER}`, `../lib/x86_64-linux-gnu/${LOADER}`),
    text('etc/passwd', PASSWD),
    text('etc/group', GROUP),
    text('etc/nsswitch.conf', NSSWITCH),
    ...(await Promise.all(libraries.map(({ name, path }) => file(`${LIBRARIES}/${name}`, path, 0o755)))),
  ]
  const nginx: TarEntry[] = [
    await file('usr/sbin/nginx', join(tree, 'usr/sbin/nginx'), 0o755),
    directory('etc/nginx'),
    ...(await copyFolder(tree, 'etc/nginx')),
    directory('usr/share'),
    directory('usr/share/nginx'),
    ...(await copyFolder(tree, 'usr/share/nginx')),
  ]
  const site: TarEntry[] = [
    text('etc/nginx/nginx.conf', NGINX_CONF),
    // Debian's default site listens on port 80 and is not wanted: whiteouts of what the layer below brought.
    text('etc/nginx/.wh.sites-available', ''),
    text('etc/nginx/.wh.sites-enabled', ''),
    directory('var/www'),
    directory('var/www/html'),
    text('var/www/html/index.html', PAGE),
  ]
  return {
    layers: [
      { compression: 'gzip', entries: base },
      { compression: 'zstd', entries: nginx },
      { compression: 'gzip', entries: site },
    ],
    config: CONFIG,
  }
}

/** The loader's own answer to what nginx needs, from the unpacked tree alone. Under the names they are loaded by. */
async function neededLibraries(tree: string): Promise<readonly { name: string; path: string }[]> {
  const folders = [join(tree, LIBRARIES), join(tree, 'lib/x86_64-linux-gnu')].filter((folder) => existsSync(folder))
  const loader = folders.map((folder) => join(folder, LOADER)).find((path) => existsSync(path))
  if (loader === undefined) throw new UnavailableError('ERR_NGINX_IMAGE', `libc6 does not bring ${LOADER}`)
  const { stdout } = await run(loader, ['--library-path', folders.join(':'), '--list', join(tree, 'usr/sbin/nginx')])
  const libraries = new Map([[LOADER, await realpath(loader)]])
  for (const [, name = '', path = ''] of stdout.matchAll(/^\s*(\S+) => (\/\S+)/gm)) {
    if (!path.startsWith(tree)) throw new UnavailableError('ERR_NGINX_IMAGE', `${name} is in none of the packages`)
    libraries.set(basename(name), await realpath(path))
  }
  if (stdout.includes('not found')) throw new UnavailableError('ERR_NGINX_IMAGE', `nginx misses libraries:\n${stdout}`)
  return [...libraries].map(([name, path]) => ({ name, path })).sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** Everything below `folder`, sorted, with the modes of the package. */
async function copyFolder(tree: string, folder: string): Promise<readonly TarEntry[]> {
  const found = await readdir(join(tree, folder), { recursive: true, withFileTypes: true })
  const paths = found.map((entry) => join(entry.parentPath, entry.name)).sort()
  const entries: TarEntry[] = []
  for (const path of paths) {
    const name = path.slice(tree.length + 1)
    const entry = found.find((candidate) => join(candidate.parentPath, candidate.name) === path)
    if (entry?.isSymbolicLink() === true) {
      entries.push({ path: name, type: 'symlink', mode: 0o777, target: await readlink(path) })
    } else if (entry?.isDirectory() === true) {
      entries.push({ path: name, type: 'directory', mode: 0o755 })
    } else {
      const mode = (await stat(path)).mode & 0o777
      entries.push({ path: name, type: 'file', mode, content: await readFile(path) })
    }
  }
  return entries
}

if (import.meta.main) console.log(await buildNginxImage({ onProgress: (line) => console.error(line) }))
