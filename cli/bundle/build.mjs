/** Makes the bundle of the command line that `caisson.mjs` starts; does nothing when it is there and current. */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { relative } from 'node:path'
import { build } from 'esbuild'
import { CLI_BUNDLE, CLI_BUNDLE_RECORD, currentBundle, ROOT, stampOf } from './current.mjs'

const ENTRY = 'cli/main.ts'
/** Npm packages change when this does. */
const LOCK = 'package-lock.json'
/** Files of earlier bundles: programs that run may still ask for theirs. */
const KEPT_MS = 24 * 60 * 60 * 1000
/** Packages that are CommonJS ask for Node's own modules in their way. */
const REQUIRE =
  'import { createRequire as makeRequire } from "node:module"; const require = makeRequire(import.meta.url);'

/** Sources find programs and documents from where they lie, and go on doing so, in whatever folder the project is. */
const PLACES = {
  name: 'places',
  setup: (bundler) => {
    bundler.onLoad({ filter: /\.(?:ts|mjs)$/ }, ({ path }) => {
      const source = readFileSync(path, 'utf8')
      if (!source.includes('import.meta')) return undefined
      const place = `new URL(${JSON.stringify(relative(CLI_BUNDLE, path))}, import.meta.url).href`
      return { contents: source.replaceAll('import.meta.url', place), loader: path.endsWith('.ts') ? 'ts' : 'js' }
    })
  },
}

if (currentBundle() === undefined) await bundle()

async function bundle() {
  mkdirSync(CLI_BUNDLE, { recursive: true })
  rmSync(CLI_BUNDLE_RECORD, { force: true })
  const started = Date.now()
  const { metafile } = await build({
    absWorkingDir: ROOT,
    entryPoints: [ENTRY],
    outdir: CLI_BUNDLE,
    // Names with hashes: a new bundle takes nothing away from who runs the old one.
    entryNames: '[name]-[hash]',
    bundle: true,
    splitting: true,
    metafile: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    // Errors tell their class.
    keepNames: true,
    banner: { js: REQUIRE },
    external: ['*.node'],
    plugins: [PLACES],
    legalComments: 'none',
    logLevel: 'error',
  })
  const sources = Object.keys(metafile.inputs).filter((path) => !path.includes('node_modules/'))
  const inputs = Object.fromEntries([...sources, LOCK, 'package.json'].map((path) => [path, stampOf(path)]))
  // Changed while it was read: the next one will be right.
  if (sources.some((path) => statSync(`${ROOT}${path}`).mtimeMs > started)) return
  const entry = Object.keys(metafile.outputs).find((path) => metafile.outputs[path]?.entryPoint === ENTRY) ?? ''
  const outputs = new Set(Object.keys(metafile.outputs).map(nameOf))
  for (const name of readdirSync(CLI_BUNDLE).filter((file) => !outputs.has(file))) {
    if (statSync(`${CLI_BUNDLE}${name}`).mtimeMs < started - KEPT_MS) rmSync(`${CLI_BUNDLE}${name}`)
  }
  writeFileSync(`${CLI_BUNDLE_RECORD}.new`, JSON.stringify({ entry: nameOf(entry), inputs }))
  renameSync(`${CLI_BUNDLE_RECORD}.new`, CLI_BUNDLE_RECORD)
}

function nameOf(path) {
  return path.slice(path.lastIndexOf('/') + 1)
}
