/**
 * The whole guest, from the lock file and the repository to a directory that can be launched and measured. Everything is
 * keyed by the content of what goes in, so a second build only hashes.
 */
import { createHash } from 'node:crypto'
import { copyFile, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { UnverifiedError } from '#protocol/errors'
import { cachedDirectory, fileSha256 } from '#tools/cache/entry'
import { type ObtainedPackage, obtainPackages } from '#tools/debian/packages'
import { installTool } from '#tools/debian/tool'
import { buildNative } from '../../native/build.mjs'
import {
  BUNDLE_FILE,
  NATIVE_FILES,
  type NativeFile,
  type RootSources,
  rootEntries,
  SIGNATURES_FILE,
  stripVersion,
} from '../rootfs/contents.ts'
import { DEBIAN_FILES } from '../rootfs/debian-files.ts'
import { type AgentBundle, bundleAgent, bundleSignatureEngines } from './bundle.ts'
import { compileAgent } from './code-cache.ts'
import { commandLine } from './command-line.ts'
import { writeRootImage } from './erofs.ts'
import { type GuestImage, type GuestManifest, loadGuest, MANIFEST_VERSION } from './guest-image.ts'
import { type BuiltKernel, buildKernel } from './kernel.ts'
import { type GuestLock, type NpmPackagePin, parseGuestLock } from './lock.ts'
import { installedPackage, installedVersion, requirePinned } from './npm-packages.ts'
import type { OnProgress } from './progress.ts'
import { type BundleContents, guestSbom, SBOM_FILE } from './sbom.ts'

export { type GuestImage, type GuestManifest, loadGuest } from './guest-image.ts'
export type { BuildProgress, OnProgress } from './progress.ts'

export interface BuildOptions {
  readonly onProgress?: OnProgress
  /** Make kernel and guest again although they are cached. */
  readonly force?: boolean
  /** TypeScript or JavaScript file that becomes the agent; default `guest/main.ts`. Other agents are for tests. */
  readonly agent?: string
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
export const LOCK_FILE: string = join(ROOT, 'guest/lock.json')
/** 60 MB each; every change of the agent makes another. */
const KEPT_GUESTS = 12

const AGENT = join(ROOT, 'guest/main.ts')

/** Builds the guest, or finds it built. Throws what the steps throw; each error names its remedy. */
export async function buildGuest(options: BuildOptions = {}): Promise<GuestImage> {
  const { onProgress = () => {}, force = false, agent = AGENT } = options
  const lock = parseGuestLock(await readFile(LOCK_FILE, 'utf8'))
  const [bundle, signatures] = [await bundleAgent(agent, ROOT), await bundleSignatureEngines(ROOT)]
  const packages = [...new Set([...bundle.packages, ...signatures.packages])]
  const bundles = { [BUNDLE_FILE]: bundle.packages, [SIGNATURES_FILE]: signatures.packages }
  const bundled = await bundledPackages({ packages }, lock)
  const node = await pinnedNode(lock)
  const native = await nativeFiles(onProgress)
  const debian = await debianPackages(lock, onProgress)
  const kernel = await buildKernel(lock.kernel, { onProgress, force })
  const sources: Sources = { debian, node, native, code: bundle.code, signatures: signatures.code }
  const key = await contentKey(sources, kernel)
  const directory = await cachedDirectory(
    'guest',
    key,
    (into) => make(into, { lock, sources, kernel, bundled, bundles }, onProgress),
    {
      force,
      keep: KEPT_GUESTS,
      onWarning: (text) => onProgress({ step: 'guest', text, warning: true }),
    },
  )
  return loadGuest(directory)
}

/** Path of an executable mkfs.erofs, the same version that the guest has. */
export async function mkfsErofs(onProgress: OnProgress = () => {}): Promise<string> {
  return erofsTool(parseGuestLock(await readFile(LOCK_FILE, 'utf8')), onProgress)
}

/** Path of an executable fsck.erofs of the same version, which also extracts. */
export async function fsckErofs(onProgress: OnProgress = () => {}): Promise<string> {
  const { suite, packages } = parseGuestLock(await readFile(LOCK_FILE, 'utf8')).debian
  return installTool({ suite, program: 'usr/bin/fsck.erofs', pins: packages }, packageProgress(onProgress))
}

/** What the root is made of, before the agent is compiled: its code and Node decide the result of that. */
type Sources = Omit<RootSources, 'agent'> & { readonly code: Uint8Array }

interface Ingredients {
  readonly lock: GuestLock
  readonly sources: Sources
  readonly kernel: BuiltKernel
  readonly bundled: readonly NpmPackagePin[]
  readonly bundles: BundleContents
}

async function make(into: string, ingredients: Ingredients, onProgress: OnProgress): Promise<void> {
  const { lock, sources, kernel, bundled, bundles } = ingredients
  onProgress({ step: 'root', text: 'assembling the root file system' })
  const { code, ...rest } = sources
  const cache = await compileAgent(code, sources.node)
  const entries = await rootEntries({ ...rest, agent: { code, cache } })
  onProgress({ step: 'root', text: 'writing erofs and its verity tree' })
  const rootFile = join(into, 'root.img')
  const root = await writeRootImage(entries, rootFile, await erofsTool(lock, onProgress))
  await copyFile(kernel.file, join(into, 'bzImage'))
  const { sha256: sourceSha256, package: name, version } = kernel.source
  const manifest: GuestManifest = {
    version: MANIFEST_VERSION,
    kernel: {
      file: 'bzImage',
      size: (await readFile(kernel.file)).length,
      sha256: kernel.sha256,
      source: `${name} ${version}`,
      sourceSha256,
      compiler: kernel.compiler,
    },
    root: { file: 'root.img', sha256: await fileSha256(rootFile), ...root },
    cmdline: { tpm: commandLine(root, 'tpm'), none: commandLine(root, 'none') },
    packages: [
      ...sources.debian.map(({ name, version, sha256 }) => ({ kind: 'debian' as const, name, version, sha256 })),
      ...[lock.node, ...bundled].map(({ name, version, sha256 }) => ({ kind: 'npm' as const, name, version, sha256 })),
    ],
  }
  await writeFile(join(into, 'guest.json'), `${JSON.stringify(manifest, null, 2)}\n`)
  await writeFile(join(into, SBOM_FILE), `${JSON.stringify(guestSbom(manifest, entries, bundles), null, 2)}\n`)
}

async function bundledPackages(
  bundle: Pick<AgentBundle, 'packages'>,
  lock: GuestLock,
): Promise<readonly NpmPackagePin[]> {
  const installed = await Promise.all(bundle.packages.map((name) => installedPackage(ROOT, name)))
  for (const each of installed) requirePinned(each, lock.bundled)
  return installed
}

/** Throws ERR_NODE_DIGEST when the installed Node is not the pinned one. */
async function pinnedNode(lock: GuestLock): Promise<string> {
  const { name, version, file, sha256 } = lock.node
  const path = join(ROOT, 'node_modules', name, file)
  const actual = [await installedVersion(ROOT, name), await fileSha256(path)]
  if (actual[0] !== version || actual[1] !== sha256) {
    throw new UnverifiedError('ERR_NODE_DIGEST', `${path} is ${actual.join(', ')}; pinned is ${version}, ${sha256}`, {
      hint: 'npm ci installs the pinned version.',
    })
  }
  return path
}

async function nativeFiles(onProgress: OnProgress): Promise<RootSources['native']> {
  const names = Object.keys(NATIVE_FILES) as NativeFile[]
  const outputs = await buildNative({
    only: names,
    onProgress: ({ target, state }) => {
      if (state === 'compiling') onProgress({ step: 'native', text: `compiling ${target}` })
    },
  })
  const pathOf = (name: NativeFile) => outputs[name] ?? ''
  return {
    init: pathOf('init'),
    reaper: pathOf('reaper'),
    guest: pathOf('guest'),
    shared: pathOf('shared'),
    'caisson-index': pathOf('caisson-index'),
  }
}

function debianPackages(lock: GuestLock, onProgress: OnProgress): Promise<readonly ObtainedPackage[]> {
  const pins = lock.debian.packages.filter((pin) => pin.name in DEBIAN_FILES)
  return obtainPackages(lock.debian.suite, pins, packageProgress(onProgress))
}

function erofsTool(lock: GuestLock, onProgress: OnProgress): Promise<string> {
  const { suite, packages } = lock.debian
  return installTool({ suite, program: 'usr/bin/mkfs.erofs', pins: packages }, packageProgress(onProgress))
}

const packageProgress = (onProgress: OnProgress) => ({
  onProgress: (text: string) => onProgress({ step: 'packages', text }),
  onWarning: (text: string) => onProgress({ step: 'packages', text, warning: true }),
})

/** Everything that decides the bytes of the output, our own recipe included. */
async function contentKey(sources: Sources, kernel: BuiltKernel): Promise<string> {
  const hash = createHash('sha256')
  const recipe = await Promise.all(['guest/build', 'guest/rootfs'].map((folder) => sourceDigests(join(ROOT, folder))))
  const native = await Promise.all(Object.values(sources.native).map(fileSha256))
  const debian = sources.debian.map((each) => each.sha256)
  const parts = [recipe, native, debian, await fileSha256(sources.node), await stripVersion(), kernel.sha256]
  hash
    .update(JSON.stringify([...parts, kernel.source, kernel.compiler]))
    .update(sources.code)
    .update(sources.signatures)
  return hash.digest('hex').slice(0, 32)
}

async function sourceDigests(folder: string): Promise<readonly string[]> {
  const files = (await readdir(folder)).filter((file) => /\.(ts|cjs)$/.test(file)).sort()
  return Promise.all(files.map(async (file) => `${file} ${await fileSha256(join(folder, file))}`))
}
