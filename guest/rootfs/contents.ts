/** The root file system as a list of entries: layout, allowed files of Debian, Node, our own programs and the agent. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { UnavailableError } from '#protocol/errors'
import type { ObtainedPackage } from '#tools/debian/packages'
import { debianEntries } from './debian-entries.ts'
import { LAYOUT } from './layout.ts'
import type { TarEntry } from './tar.ts'

const run = promisify(execFile)

const LOADER = fileURLToPath(new URL('agent-loader.cjs', import.meta.url))

/** Native targets that enter the guest → where they lie in it. Addons are loaded, not executed. */
export const NATIVE_FILES = {
  init: { path: 'usr/sbin/init', mode: 0o755 },
  reaper: { path: 'usr/lib/caisson/reaper', mode: 0o755 },
  guest: { path: 'usr/lib/caisson/guest.node', mode: 0o644 },
  shared: { path: 'usr/lib/caisson/shared.node', mode: 0o644 },
  'caisson-index': { path: 'usr/lib/caisson/caisson-index', mode: 0o755 },
} as const

export const BUNDLE_FILE = 'usr/lib/caisson/bundle.js'
export const SIGNATURES_FILE = 'usr/lib/caisson/signatures.js'

export type NativeFile = keyof typeof NATIVE_FILES

export interface RootSources {
  readonly debian: readonly ObtainedPackage[]
  /** Path of the Node binary as npm installs it; its symbol table and debugging sections stay outside. */
  readonly node: string
  /** Path of each native program. */
  readonly native: Readonly<Record<NativeFile, string>>
  /** The agent: one function expression, and V8's code cache for it. */
  readonly agent: { readonly code: Uint8Array; readonly cache: Uint8Array }
  /** What judges OpenPGP and sigstore bundles: the same kind of function, read only when a policy asks for it. */
  readonly signatures: Uint8Array
}

/** Throws ERR_ROOTFS_PACKAGE, and ERR_ROOTFS_STRIP when binutils are missing. */
export async function rootEntries(sources: RootSources): Promise<readonly TarEntry[]> {
  const scratch = await mkdtemp(join(tmpdir(), 'caisson-root-'))
  try {
    const entries: TarEntry[] = [...LAYOUT]
    for (const { name, file } of sources.debian) {
      const folder = join(scratch, name)
      await run('dpkg-deb', ['--extract', file, folder])
      entries.push(...(await debianEntries(name, folder)))
    }
    for (const [name, { path, mode }] of Object.entries(NATIVE_FILES) as [
      NativeFile,
      { path: string; mode: number },
    ][]) {
      entries.push({ kind: 'file', path, mode, content: await readFile(sources.native[name]) })
    }
    const node = await strip(sources.node, join(scratch, 'node'))
    entries.push({ kind: 'file', path: 'usr/lib/caisson/node', mode: 0o755, content: node })
    entries.push({ kind: 'file', path: 'usr/lib/caisson/agent.js', mode: 0o644, content: await readFile(LOADER) })
    entries.push({ kind: 'file', path: BUNDLE_FILE, mode: 0o644, content: sources.agent.code })
    entries.push({ kind: 'file', path: SIGNATURES_FILE, mode: 0o644, content: sources.signatures })
    entries.push({ kind: 'file', path: 'usr/lib/caisson/bundle.cache', mode: 0o644, content: sources.agent.cache })
    return entries
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

/** What decides the stripped bytes besides the input. */
export async function stripVersion(): Promise<string> {
  const { stdout } = await run('strip', ['--version']).catch(noBinutils)
  return stdout.split('\n')[0] ?? ''
}

async function strip(from: string, to: string): Promise<Uint8Array> {
  await run('strip', ['--strip-all', '-o', to, from]).catch(noBinutils)
  return readFile(to)
}

function noBinutils(cause: unknown): never {
  throw new UnavailableError('ERR_ROOTFS_STRIP', 'strip failed or is not installed', {
    hint: 'apt-get install binutils',
    cause,
  })
}
