/**
 * node tools/repro/main.ts [--root-only]
 *
 * Builds the guest a second time, elsewhere and differently, and compares it byte for byte with the one of this working
 * copy: kernel, root file system, manifest, SBOM and the measurements that follow from them. The second build has another
 * folder, umask, locale, time zone, cache, file times and order of directory entries; its native programs and its kernel
 * are compiled anew. `--root-only` takes the kernel of the first, which saves minutes.
 */
import { spawn } from 'node:child_process'
import { cp, mkdir, mkdtemp, readdir, readFile, rm, utimes } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { measureTpmGuest } from '#attestation/measure/tpm/measure'
import { fsckErofs, type GuestImage, loadGuest } from '#guest/build/build'
import { diffGuests } from '#guest/build/diff'
import { cacheDirectory } from '../cache/location.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
/** Downloads, pinned by digest, and programs made from them: the same for everybody. */
const SHARED_CACHE = ['debian', 'tools']
/** Long ago, so that nothing can take a file's time for that of the build. */
const OLD_TIME = new Date('2001-02-03T04:05:06Z')

const { values } = parseArgs({ options: { 'root-only': { type: 'boolean', default: false } } })

const started = Date.now()
const interrupts = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => interrupts.abort(name))
const scratch = await mkdtemp(join(tmpdir(), 'caisson-repro-'))
try {
  const first = await build([process.execPath, 'guest/build/main.ts'], {
    cwd: ROOT,
    env: { ...process.env, TMPDIR: scratch },
    signal: interrupts.signal,
  })
  const second = await buildElsewhere(scratch, values['root-only'], interrupts.signal)
  const equal = await compare(first, second)
  console.log(equal ? `the guest is reproducible (${seconds(started)})` : 'the guest is NOT reproducible')
  process.exitCode = equal ? 0 : 1
} catch (error) {
  if (!interrupts.signal.aborted) throw error
  console.error(`${String(interrupts.signal.reason)}: ended, and what was built is removed`)
  process.exitCode = interrupts.signal.reason === 'SIGINT' ? 130 : 143
} finally {
  // A compiler that was told to end may write a last file.
  await rm(scratch, { recursive: true, force: true, maxRetries: 5 })
}

async function buildElsewhere(scratch: string, rootOnly: boolean, signal: AbortSignal): Promise<GuestImage> {
  const folder = join(scratch, 'a folder/with another name')
  await copySources(folder, signal)
  const cache = join(scratch, 'cache')
  for (const kind of rootOnly ? [...SHARED_CACHE, 'kernel'] : SHARED_CACHE) {
    signal.throwIfAborted()
    await cp(join(cacheDirectory(), kind), join(cache, 'caisson', kind), { recursive: true, verbatimSymlinks: true })
  }
  signal.throwIfAborted()
  return build(['sh', '-c', 'umask 077; exec "$@"', 'sh', process.execPath, 'guest/build/main.ts'], {
    cwd: folder,
    env: {
      PATH: process.env.PATH,
      HOME: scratch,
      TMPDIR: scratch,
      XDG_CACHE_HOME: cache,
      TZ: 'Asia/Kathmandu',
      LANG: 'tr_TR.UTF-8',
      LC_ALL: 'tr_TR.UTF-8',
    },
    signal,
  })
}

/** Runs a command that builds a guest and prints where it is. */
async function build(
  [program = '', ...args]: readonly string[],
  { signal, ...surroundings }: { readonly cwd: string; readonly env: NodeJS.ProcessEnv; readonly signal: AbortSignal },
): Promise<GuestImage> {
  signal.throwIfAborted()
  // A group of its own, so that make and its compilers can be ended with it.
  const child = spawn(program, args, { ...surroundings, stdio: ['ignore', 'pipe', 'inherit'], detached: true })
  const end = (): void => void process.kill(-(child.pid ?? 0), 'SIGTERM')
  signal.addEventListener('abort', end, { once: true })
  const output = await new Promise<string>((resolve, reject) => {
    let text = ''
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    child.once('error', reject)
    child.once('close', (code) => (code === 0 ? resolve(text) : reject(new Error(`a build ended with ${code}`))))
  })
  signal.removeEventListener('abort', end)
  return loadGuest(output.trim())
}

/** What version control knows, and the npm packages, written in the opposite order. */
async function copySources(folder: string, signal: AbortSignal): Promise<void> {
  const listed = spawn('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], { cwd: ROOT })
  let text = ''
  for await (const chunk of listed.stdout.setEncoding('utf8')) text += String(chunk)
  const files = text.split('\0').filter((path) => path !== '' && !path.startsWith('test/'))
  for (const path of files.toSorted().toReversed()) {
    signal.throwIfAborted()
    const to = join(folder, path)
    await mkdir(dirname(to), { recursive: true })
    // A file that version control knows may be gone from the folder.
    await cp(join(ROOT, path), to).catch(ignoreMissing)
    await utimes(to, OLD_TIME, OLD_TIME).catch(ignoreMissing)
  }
  const packages = await readdir(join(ROOT, 'node_modules'))
  for (const name of packages.toSorted().toReversed()) {
    signal.throwIfAborted()
    await cp(join(ROOT, 'node_modules', name), join(folder, 'node_modules', name), {
      recursive: true,
      verbatimSymlinks: true,
    })
  }
}

function ignoreMissing(error: unknown): void {
  if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error
}

async function compare(first: GuestImage, second: GuestImage): Promise<boolean> {
  let equal = true
  for (const name of ['bzImage', 'root.img', 'guest.json', 'guest.spdx.json']) {
    const [a, b] = await Promise.all([first, second].map(({ directory }) => readFile(join(directory, name))))
    const same = a !== undefined && b !== undefined && a.equals(b)
    console.log(`${name.padEnd(16)} ${same ? `equal, ${a.length} bytes` : 'DIFFERENT'}`)
    equal &&= same
  }
  const firmware = await readFile('/usr/share/ovmf/OVMF.fd')
  const measurements = async ({ kernelPath, manifest }: GuestImage): Promise<string> => {
    const kernel = await readFile(kernelPath)
    const boot = {
      firmware,
      kernel,
      cmdline: manifest.cmdline.tpm,
      initdata: new Uint8Array(1),
      vcpus: 2,
      memoryMib: 1024,
    }
    return JSON.stringify(measureTpmGuest(boot).pcrs.sha256)
  }
  const [ours, theirs] = await Promise.all([first, second].map(measurements))
  console.log(`${'measurements'.padEnd(16)} ${ours === theirs ? `equal, ${ours}` : 'DIFFERENT'}`)
  if (equal) return ours === theirs
  for (const { what, a = 'absent', b = 'absent' } of await diffGuests(first, second, await fsckErofs())) {
    console.log(`${what}\n  - ${a}\n  + ${b}`)
  }
  return false
}

function seconds(since: number): string {
  return `${((Date.now() - since) / 1000).toFixed(0)} s`
}
