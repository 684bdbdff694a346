/**
 * The agent as one file, a function of Node's five module variables. CommonJS, because Node starts it without the module loader's asynchronous half; so nothing that
 * the agent imports may use await at top level. Reports which npm packages went in, for the lock.
 */
import { join, resolve, sep } from 'node:path'
import { build, type Plugin } from 'esbuild'
import { errorText, UnavailableError } from '#protocol/errors'

export interface AgentBundle {
  /** ASCII: a function expression that `guest/rootfs/agent-loader.cjs` calls. */
  readonly code: Uint8Array
  /** Names of npm packages with at least one module inside. */
  readonly packages: readonly string[]
}

const PROLOGUE = Buffer.from('(function (exports, require, module, __filename, __dirname) {')
const EPILOGUE = Buffer.from('})')

/** `import.meta.url` of bundled modules is the bundle's own: addons lie beside it. */
const IMPORT_META_URL = 'const importMetaUrl = require("node:url").pathToFileURL(__filename).href;'

/** The name under which the agent gives its own error classes to the second bundle: `instanceof` asks for the same ones. */
export const SHARED_ERRORS = 'caisson-errors'

const SHARE_ERRORS: Plugin = {
  name: 'share-errors',
  setup: (bundler) => {
    bundler.onResolve({ filter: /(?:^#protocol\/errors|[./]\/errors\.ts)$/ }, ({ path, resolveDir }) => {
      const ours = path.startsWith('#') || resolve(resolveDir, path).endsWith(join('protocol', 'errors.ts'))
      return ours ? { path: SHARED_ERRORS, external: true } : undefined
    })
  },
}

/** What judges OpenPGP signatures and sigstore bundles, as one file of the same kind. */
export function bundleSignatureEngines(root: string): Promise<AgentBundle> {
  return bundle(join(root, 'guest/signature-engines.ts'), root, [SHARE_ERRORS])
}

/** Throws ERR_AGENT_BUNDLE with the bundler's reasons. Paths in the output are relative to `root`, the repository. */
export function bundleAgent(entry: string, root: string): Promise<AgentBundle> {
  return bundle(entry, root, [])
}

async function bundle(entry: string, root: string, plugins: Plugin[]): Promise<AgentBundle> {
  try {
    const result = await build({
      absWorkingDir: root,
      entryPoints: [entry],
      bundle: true,
      write: false,
      metafile: true,
      platform: 'node',
      target: 'node24',
      format: 'cjs',
      // Of packages with two builds take the modules: CommonJS ones bring copies of themselves along.
      mainFields: ['module', 'main'],
      define: { 'import.meta.url': 'importMetaUrl' },
      banner: { js: IMPORT_META_URL },
      external: ['*.node'],
      plugins,
      legalComments: 'none',
      minifyWhitespace: true,
      minifySyntax: true,
      logLevel: 'silent',
    })
    const [output] = result.outputFiles
    if (output === undefined) throw new Error('no output')
    const packages = Object.keys(result.metafile.inputs).map(packageOf)
    const code = Buffer.concat([PROLOGUE, output.contents, EPILOGUE])
    return { code, packages: [...new Set(packages.filter((name) => name !== undefined))].sort() }
  } catch (cause) {
    throw new UnavailableError('ERR_AGENT_BUNDLE', `The agent could not be bundled: ${errorText(cause)}`, { cause })
  }
}

function packageOf(path: string): string | undefined {
  const [, inside] = path
    .split(sep)
    .join('/')
    .split(/.*node_modules\//)
  const [first = '', second = ''] = inside?.split('/') ?? []
  return inside === undefined ? undefined : first.startsWith('@') ? `${first}/${second}` : first
}
