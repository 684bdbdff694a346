/**
 * Compiles the native parts listed in `targets.mjs` with plain gcc and g++ into `native/build/`.
 *
 *     node native/build.mjs [--only NAME]... [--list]
 *
 * No dependency and no build system: it runs before anything is installed but Node (18 or later) and the npm packages
 * that hold Node-API's headers. A target is compiled when its fingerprint changed: sources, the headers beside them,
 * flags, compiler version. The output does not depend on where the repository lies. Two builds at once, or one that is
 * killed, leave either the old output or the new one: results are renamed into place, and the stamp names the digest of
 * the output it vouches for.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, extname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { targets } from './targets.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const outDir = join(root, 'native/build')

/** Two compilers at a time: each may take 300 MiB, and machines this is built on have two cores. */
const PARALLEL = 2

const WARNINGS = ['-Wall', '-Wextra', '-Werror', '-Wvla', '-Wformat=2']
const HARDENING = ['-fstack-protector-strong', '-D_FORTIFY_SOURCE=2', '-fcf-protection']
const LINK_HARDENING = ['-Wl,-z,relro,-z,now', '-Wl,-z,noexecstack']
const COMMON = ['-g0', '-ffile-prefix-map=.=caisson', ...WARNINGS]
const LANGUAGE = { c: ['-std=gnu17'], cxx: ['-std=c++20', '-fno-exceptions', '-fno-rtti'] }

/** Compilers by language, and the Debian packages that have them. */
const GNU = { c: 'gcc', cxx: 'g++', packages: { gcc: 'gcc', 'g++': 'g++' } }
/** libFuzzer comes with clang alone. */
const CLANG = {
  c: 'clang-14',
  cxx: 'clang++-14',
  packages: { 'clang-14': 'clang-14 libclang-rt-14-dev', 'clang++-14': 'clang-14 libclang-rt-14-dev' },
}

/** Flags by kind of target; `{language}` flags go before, the target's own flags after. */
const KINDS = {
  program: { compile: ['-O2', '-fPIE', ...HARDENING], link: ['-pie', '-s', ...LINK_HARDENING], suffix: '' },
  'static-program': {
    compile: ['-O2', '-fPIE', ...HARDENING],
    link: ['-static-pie', '-s', ...LINK_HARDENING],
    suffix: '',
  },
  addon: {
    compile: ['-O2', '-fPIC', '-fvisibility=hidden', ...HARDENING],
    link: ['-shared', '-s', ...LINK_HARDENING],
    suffix: '.node',
  },
  'sanitized-program': {
    compile: ['-O1', '-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-fno-omit-frame-pointer'],
    link: [],
    suffix: '',
  },
  'fuzz-program': {
    compile: [
      '-O1',
      '-fsanitize=fuzzer,address,undefined',
      '-fno-sanitize-recover=all',
      '-fno-omit-frame-pointer',
      '-g1',
    ],
    link: [],
    suffix: '',
    compilers: CLANG,
  },
}

/** A part could not be built. `code` is stable, `hint` says what to do. */
export class NativeBuildError extends Error {
  constructor(code, message, hint) {
    super(message)
    this.name = 'NativeBuildError'
    this.code = code
    this.hint = hint
  }
}

/** Path of a target's output, whether it exists or not. */
export function nativeOutput(name) {
  const target = targets.find((candidate) => candidate.name === name)
  if (target === undefined) throw unknownTarget(name)
  return join(outDir, name + KINDS[target.kind].suffix)
}

/**
 * Brings targets up to date: those named by `only`, else all that are not on demand. `onProgress` receives
 * `{target, state, durationMs?}` with state `fresh`, `compiling` or `built`. Answers with the output path of each
 * target that has sources.
 */
export async function buildNative({ only = [], onProgress = () => {} } = {}) {
  for (const name of only) if (!targets.some((target) => target.name === name)) throw unknownTarget(name)
  const wanted = targets.filter((target) => (only.length > 0 ? only.includes(target.name) : target.onDemand !== true))
  const outputs = {}
  const queue = wanted.map((target) => ({ target, sources: target.sources.flatMap(expand) }))
  const work = async () => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
      if (job.sources.length > 0) outputs[job.target.name] = await buildTarget(job.target, job.sources, onProgress)
    }
  }
  await Promise.all(Array.from({ length: PARALLEL }, work))
  return outputs
}

async function buildTarget(target, sources, onProgress) {
  const kind = KINDS[target.kind]
  const language = sources.every((source) => extname(source) === '.c') ? 'c' : 'cxx'
  const compilers = kind.compilers ?? GNU
  const compiler = compilers[language]
  const output = join(outDir, target.name + kind.suffix)
  const stamp = join(outDir, `${target.name}.stamp`)
  const flags = [
    ...LANGUAGE[language],
    ...COMMON,
    ...kind.compile,
    ...(target.kind === 'addon' ? addonFlags() : []),
    ...(target.flags ?? []),
  ]
  const libs = [...kind.link, ...(target.libs ?? [])]
  const headers = (target.headers ?? []).flatMap(expand)
  const version = await compilerVersion(compiler, compilers.packages[compiler])
  const fingerprint = fingerprintOf({ version, sources, headers, flags, libs })
  if (isFresh(output, stamp, fingerprint)) {
    onProgress({ target: target.name, state: 'fresh' })
    return output
  }

  onProgress({ target: target.name, state: 'compiling' })
  const startMs = Date.now()
  mkdirSync(outDir, { recursive: true })
  const scratch = join(outDir, `.${target.name}.${process.pid}.${startMs}`)
  try {
    await compile(compiler, [...flags, '-o', scratch, ...sources, ...libs], target.name)
    const digest = sha256(readFileSync(scratch))
    renameSync(scratch, output)
    writeFileSync(`${scratch}.stamp`, `${fingerprint} ${digest}\n`)
    renameSync(`${scratch}.stamp`, stamp)
  } finally {
    rmSync(scratch, { force: true })
    rmSync(`${scratch}.stamp`, { force: true })
  }
  onProgress({ target: target.name, state: 'built', durationMs: Date.now() - startMs })
  return output
}

/** Node-API only, so one build serves every Node from 18 on; no C++ exceptions cross into JavaScript. */
function addonFlags() {
  const includes = ['node-api-headers/include', 'node-addon-api'].map((path) => join('node_modules', path))
  for (const path of includes) {
    if (!existsSync(join(root, path))) {
      throw new NativeBuildError('ERR_NATIVE_HEADERS', `${path} is not installed`, 'Run "npm ci" first.')
    }
  }
  const defines = ['NAPI_VERSION=9', 'NODE_ADDON_API_DISABLE_DEPRECATED', 'NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS']
  // As system headers: their warnings are not ours to fix.
  return [...includes.flatMap((path) => ['-isystem', path]), ...defines.map((define) => `-D${define}`)]
}

/** Digest of everything that decides the output. Packages count by version: npm's lock file pins their content. */
function fingerprintOf({ version, sources, headers, flags, libs }) {
  const hash = createHash('sha256')
  hash.update(JSON.stringify({ version, flags, libs }))
  for (const name of ['node-api-headers', 'node-addon-api']) {
    const manifest = join(root, 'node_modules', name, 'package.json')
    if (flags.includes('-isystem')) hash.update(JSON.parse(readFileSync(manifest, 'utf8')).version)
  }
  const beside = [...new Set(sources.map((source) => dirname(source)))].flatMap((folder) => expand(`${folder}/*.h`))
  for (const file of [...sources, ...beside, ...headers]) {
    const content = readFileSync(join(root, file))
    hash.update(`${file}\0${content.length}\0`).update(content)
  }
  return hash.digest('hex')
}

function isFresh(output, stamp, fingerprint) {
  try {
    const [built, digest] = readFileSync(stamp, 'utf8').trim().split(' ')
    return built === fingerprint && sha256(readFileSync(output)) === digest
  } catch {
    return false
  }
}

const versions = new Map()

async function compilerVersion(compiler, packages) {
  const known = versions.get(compiler)
  if (known !== undefined) return known
  const { status, text } = await run(compiler, ['--version'])
  const version = status === 0 ? text.split('\n')[0] : undefined
  if (version === undefined) {
    const hint = packages.includes(' ')
      ? `Install the Debian packages of it (apt-get install ${packages}).`
      : `Install the Debian package ${packages} (apt-get install ${packages}).`
    throw new NativeBuildError('ERR_COMPILER_MISSING', `the compiler ${compiler} is missing or broken`, hint)
  }
  versions.set(compiler, version)
  return version
}

async function compile(compiler, args, name) {
  const { status, text } = await run(compiler, args)
  if (status === 0) {
    if (text.trim() !== '') process.stderr.write(text)
    return
  }
  const library = /cannot find -l(\S+)/.exec(text)?.[1]
  const header = /fatal error: (\S+): No such file/.exec(text)?.[1]
  const missing = library !== undefined ? `lib${library}-dev` : header !== undefined ? `which has ${header}` : undefined
  const hint = missing === undefined ? undefined : `Install the Debian package ${missing}.`
  throw new NativeBuildError('ERR_NATIVE_COMPILE', `${name} does not compile (${compiler}):\n${text}`, hint)
}

/** Runs from the root with relative paths, so no output names this folder. Resolves with status -1 if it cannot start. */
function run(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, LC_ALL: 'C' },
    })
    let text = ''
    child.stdout.on('data', (chunk) => (text += chunk))
    child.stderr.on('data', (chunk) => (text += chunk))
    child.on('error', () => resolve({ status: -1, text }))
    child.on('close', (status) => resolve({ status: status ?? -1, text }))
  })
}

/** `folder/*.ext` to the sorted files it matches now; a path without `*` to itself if it exists. */
function expand(pattern) {
  if (!pattern.includes('*')) return existsSync(join(root, pattern)) ? [pattern] : []
  const folder = dirname(pattern)
  if (!existsSync(join(root, folder))) return []
  const suffix = basename(pattern).slice(1)
  const names = readdirSync(join(root, folder)).filter((name) => name.endsWith(suffix) && !name.startsWith('.'))
  return names.sort().map((name) => `${folder}/${name}`)
}

function sha256(bytes) {
  return createHash('sha256').update(bytes).digest('hex')
}

function unknownTarget(name) {
  const names = targets.map((target) => target.name).join(', ')
  return new NativeBuildError(
    'ERR_NATIVE_TARGET',
    `there is no native target ${JSON.stringify(name)}`,
    `One of: ${names}.`,
  )
}

async function main(args) {
  const only = []
  for (let index = 0; index < args.length; index++) {
    if (args[index] === '--list') {
      for (const { name, kind, onDemand } of targets) console.log(`${name} (${kind}${onDemand ? ', on demand' : ''})`)
      return 0
    }
    if (args[index] !== '--only' || args[index + 1] === undefined) {
      console.error('usage: node native/build.mjs [--only NAME]... [--list]')
      return 2
    }
    only.push(args[++index])
  }
  const onProgress = ({ target, state, durationMs }) => {
    if (state === 'built') console.log(`${target} built in ${(durationMs / 1000).toFixed(1)} s`)
    else if (state === 'fresh' && only.length > 0) console.log(`${target} is up to date`)
  }
  await buildNative({ only, onProgress })
  return 0
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  main(process.argv.slice(2)).then(
    (status) => {
      process.exitCode = status
    },
    (error) => {
      if (!(error instanceof NativeBuildError)) throw error
      console.error(`${error.code}: ${error.message}`)
      if (error.hint !== undefined) console.error(error.hint)
      process.exitCode = error.code === 'ERR_COMPILER_MISSING' || error.code === 'ERR_NATIVE_HEADERS' ? 3 : 1
    },
  )
}
