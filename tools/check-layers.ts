/**
 * Fails when a folder imports from a folder it must not know about. The table is the architecture: the guest's side
 * (attestation, image, policies, guest) and the host's side (vmm, host-shim) never import each other, so the import
 * graph is the trust boundary. Code that the guest links names no JavaScript engine outside folders called `node`.
 */
import { globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** Part → parts it may import from, besides itself. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  protocol: [],
  'native/host': ['protocol'],
  'native/guest': ['protocol'],
  'native/shared': ['protocol'],
  policies: ['protocol'],
  attestation: ['protocol', 'policies', 'native/shared'],
  image: ['protocol', 'policies', 'native/shared'],
  guest: ['protocol', 'native/guest', 'native/shared', 'native/build.mjs', 'attestation', 'image', 'policies', 'tools'],
  vmm: ['protocol', 'native/host'],
  'host-shim': ['protocol', 'native/host', 'vmm'],
  cli: [
    'protocol',
    'native/host',
    'native/shared',
    'attestation',
    'image',
    'policies',
    'guest',
    'vmm',
    'host-shim',
    'tools',
  ],
}

/** Only the guest's build, which runs on the builder's machine, may use tools and the native build. */
const BUILD_TOOLS = ['tools', 'native/build.mjs']
const BUILD_ONLY = /^guest\/(build|rootfs|kernel)\//

/** Folders whose code runs inside the guest, and so names no engine. */
const ENGINE_NEUTRAL = [
  'guest/agent/**/*.ts',
  'policies/*.ts',
  'attestation/client/*.ts',
  'attestation/tpm/guest/*.ts',
  'image/{pull,policy,registry,signature,encryption}/**/*.ts',
  'protocol/*.ts',
  'protocol/{ttrpc,oci,gen}/**/*.ts',
]

/** Static, side-effect and dynamic imports. */
const IMPORT = /\b(?:from|import)\s*\(?\s*'([^']+)'/g

function partOf(path: string): string {
  const [first = '', second = ''] = path.split('/')
  return first === 'native' ? `native/${second}` : first
}

const problems: string[] = []
for (const [part, allowed] of Object.entries(MAY_IMPORT)) {
  for (const file of globSync(`${part}/**/*.ts`)) {
    for (const [, specifier = ''] of readFileSync(file, 'utf8').matchAll(IMPORT)) {
      if (!specifier.startsWith('#') && !specifier.startsWith('.')) continue
      const target = partOf(specifier.startsWith('#') ? specifier.slice(1) : join(dirname(file), specifier))
      const buildOnly = BUILD_TOOLS.includes(target) && part === 'guest' && !BUILD_ONLY.test(file)
      if (target !== part && (!allowed.includes(target) || buildOnly)) {
        problems.push(`${file}: ${part} may not import from ${target} (${specifier})`)
      }
    }
  }
}
for (const pattern of ENGINE_NEUTRAL) {
  for (const file of globSync(pattern)) {
    for (const [, specifier = ''] of readFileSync(file, 'utf8').matchAll(IMPORT)) {
      const namesEngine = specifier.startsWith('node:') || /(^|\/)node\//.test(specifier)
      if (namesEngine) problems.push(`${file}: runs in the guest and may not name an engine (${specifier})`)
    }
  }
}

for (const problem of problems) console.error(problem)
process.exitCode = problems.length === 0 ? 0 : 1
