/** Makes the bundle of the command line that `caisson.mjs` starts; does nothing when it is there and current. */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, relative } from 'node:path'
import { build } from 'esbuild'
import { CLI_BUNDLE, CLI_BUNDLE_RECORD, currentBundle, ROOT, stampOf } from './current.mjs'

const ENTRY = 'cli/main.ts'
/** Besides sources: how the bundle is made, and what npm packages are there. */
const OTHERS = ['cli/bundle/build.mjs', 'package.json', 'package-lock.json']
/** Files of earlier bundles: programs that run may still ask for theirs. */
const KEPT_MS = 24 * 60 * 60 * 1000
/**
 * In front of each file: what CommonJS packages have of Node, and the way to where a module lay. All outputs lie in one
 * folder, so a module's place is the same from each.
 */
const PROLOGUE = `import { createRequire as __bundleMakeRequire } from "node:module"
import { fileURLToPath as __bundlePathOfUrl } from "node:url"
const require = __bundleMakeRequire(import.meta.url)
const __bundlePlaceOf = (path) => new URL(path, import.meta.url).href
const __bundlePathOf = (path) => __bundlePathOfUrl(__bundlePlaceOf(path))
`

/** What a module finds in place of `import.meta.url`. */
const PLACE = '__bundlePlaceOfModule'

/** Modules find programs and documents from where they lie, and go on doing so, in whatever folder the project is. */
const PLACES = {
  name: 'places',
  setup: (bundler) => {
    bundler.onLoad({ filter: /\.(?:ts|mjs|js|cjs)$/ }, ({ path }) => {
      const source = readFileSync(path, 'utf8')
      const at = (place) => JSON.stringify(relative(CLI_BUNDLE, place))
      // In front, on the first line: line numbers stay what they are.
      if (source.includes('import.meta.url')) {
        return {
          contents: `const ${PLACE} = __bundlePlaceOf(${at(path)});${source}`,
          loader: path.endsWith('.ts') ? 'ts' : 'js',
        }
      }
      if (path.endsWith('.ts') || !/\b__(?:file|dir)name\b/.test(source)) return undefined
      const names = `;var __filename = __bundlePathOf(${at(path)}), __dirname = __bundlePathOf(${at(dirname(path))});`
      return { contents: source.replace(/^(?:["']use strict["'];?)?/, (strict) => strict + names), loader: 'js' }
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
    banner: { js: PROLOGUE },
    define: { 'import.meta.url': PLACE },
    external: ['*.node'],
    plugins: [PLACES],
    legalComments: 'none',
    logLevel: 'error',
  })
  const sources = Object.keys(metafile.inputs).filter((path) => !path.includes('node_modules/'))
  const inputs = Object.fromEntries([...sources, ...OTHERS].map((path) => [path, stampOf(path)]))
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
