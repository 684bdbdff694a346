/**
 * The guest's kernel: Debian's linux-source package under /usr/src, `guest/kernel/config.fragment` and the machine's
 * compiler. `allnoconfig` takes every option from the fragment or leaves it off, so the fragment is the whole configuration.
 * The image is cached by what it is made from; a build takes minutes, a hit nothing.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { copyFile, mkdir, readFile, rm } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { MalformedError, UnavailableError, UnverifiedError } from '#protocol/errors'
import { cachedDirectory, fileSha256 } from '#tools/cache/entry'
import { runMake } from './kernel-make.ts'
import type { KernelPin } from './lock.ts'
import type { OnProgress } from './progress.ts'

const run = promisify(execFile)
const FRAGMENT = fileURLToPath(new URL('../kernel/config.fragment', import.meta.url))

export interface BuiltKernel {
  /** Path of the bzImage. */
  readonly file: string
  readonly sha256: string
  /** The source it was really built from: the pin, or what is installed in its place. */
  readonly source: KernelPin
  readonly compiler: string
}

/**
 * Throws ERR_KERNEL_SOURCE or ERR_KERNEL_TOOLS when something is not installed, ERR_KERNEL_DIGEST when the pinned version
 * has other bytes, ERR_KERNEL_CONFIG when an option of the fragment did not take, ERR_KERNEL_BUILD when make fails.
 */
export async function buildKernel(
  pin: KernelPin,
  options: { onProgress: OnProgress; force?: boolean },
): Promise<BuiltKernel> {
  const { onProgress, force = false } = options
  const fragment = await readFile(FRAGMENT, 'utf8')
  const compiler = await compilerVersion()
  const source = await installedSource(pin, onProgress)
  const recipe = await readFile(MAKE_MODULE, 'utf8')
  const inputs = [optionsOf(fragment), source.version, source.sha256, compiler, recipe]
  const key = createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 32)
  const directory = await cachedDirectory('kernel', key, (into) => make(source, fragment, into, onProgress), {
    force,
    onWarning: (text) => onProgress({ step: 'kernel', text, warning: true }),
  })
  const file = join(directory, 'bzImage')
  return { file, sha256: await fileSha256(file), source, compiler }
}

const MAKE_MODULE = fileURLToPath(new URL('kernel-make.ts', import.meta.url))

/** What there is to build from. The pinned version needs no look at the tarball until something is built. */
async function installedSource(pin: KernelPin, onProgress: OnProgress): Promise<KernelPin> {
  const query = await run('dpkg-query', ['--show', '--showformat=${Version}', pin.package]).catch(() => undefined)
  const version = query?.stdout.trim() ?? ''
  // Not installed: a cached kernel of the pinned source still serves.
  if (version === '' || version === pin.version) return pin
  const sha256 = await fileSha256(tarball(pin))
  const text = `RE-LOCKED ${pin.package}: pinned ${pin.version} (${pin.sha256}), installed is ${version} (${sha256}); using it`
  onProgress({ step: 'kernel', text, warning: true })
  return { ...pin, version, sha256 }
}

async function make(source: KernelPin, fragment: string, into: string, onProgress: OnProgress): Promise<void> {
  await checkSource(source)
  // Inside the entry that is being made, so that the next run removes what a killed one left.
  const tree = join(into, 'tree')
  await mkdir(tree)
  onProgress({ step: 'kernel', text: `unpacking ${source.file}`, percent: 0 })
  await run('tar', ['-xf', tarball(source), '-C', tree, '--strip-components=1', ...EXCLUDED])
  await runMake(tree, fragment, {
    jobs: availableParallelism(),
    onPercent: (percent) => onProgress({ step: 'kernel', text: `compiling Linux ${source.version}`, percent }),
  })
  requireOptions(fragment, await readFile(join(tree, '.config'), 'utf8'))
  await copyFile(join(tree, 'arch/x86/boot/bzImage'), join(into, 'bzImage'))
  await copyFile(join(tree, '.config'), join(into, 'config'))
  await rm(tree, { recursive: true })
}

/** Files that no configuration of this guest compiles: half a gigabyte of writes saved, nothing else. Kconfig reads all Kconfig. */
const EXCLUDED = ['*/arch/[!x]*/*.[chS]', '*/arch/*.dts*', '*/Documentation/*.rst', '*/drivers/gpu/drm/amd/*.h'].map(
  (pattern) => `--exclude=${pattern}`,
)

const tarball = (pin: KernelPin) => join('/usr/src', pin.file)

async function checkSource(source: KernelPin): Promise<void> {
  if (!existsSync(tarball(source))) {
    throw new UnavailableError(
      'ERR_KERNEL_SOURCE',
      `${source.package} is not installed: ${tarball(source)} is missing`,
      {
        hint: `apt-get install ${source.package} (on Debian bookworm from bookworm-backports)`,
      },
    )
  }
  const sha256 = await fileSha256(tarball(source))
  if (sha256 !== source.sha256) {
    throw new UnverifiedError(
      'ERR_KERNEL_DIGEST',
      `${tarball(source)} of ${source.version} has SHA-256 ${sha256}, pinned is ${source.sha256}`,
      { hint: `Install ${source.package} again; a version never changes its bytes.` },
    )
  }
}

/** The lines that mean something; comments change no kernel. */
function optionsOf(fragment: string): readonly string[] {
  return fragment.split('\n').filter((line) => line.startsWith('CONFIG_'))
}

/** An option that vanished silently (renamed, a dependency missing) would be a guest without what the fragment promises. */
function requireOptions(fragment: string, config: string): void {
  const taken = new Set(config.split('\n'))
  const lost = optionsOf(fragment).filter((line) => !taken.has(line))
  if (lost.length > 0) {
    throw new MalformedError(
      'ERR_KERNEL_CONFIG',
      `These options of config.fragment did not take effect: ${lost.join(', ')}`,
      {
        hint: 'The option was renamed, or one it depends on is missing from the fragment.',
      },
    )
  }
}

async function compilerVersion(): Promise<string> {
  try {
    const [gcc, ld] = await Promise.all([run('gcc', ['--version']), run('ld', ['--version'])])
    return [gcc, ld].map(({ stdout }) => stdout.split('\n')[0] ?? '').join('; ')
  } catch (cause) {
    throw new UnavailableError('ERR_KERNEL_TOOLS', 'gcc or ld is not installed', {
      hint: 'apt-get install gcc binutils make flex bison bc libelf-dev libssl-dev xz-utils lz4',
      cause,
    })
  }
}
