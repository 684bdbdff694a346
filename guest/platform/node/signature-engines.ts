/** Loads the guest's second bundle, made from guest/signature-engines.ts, when a policy needs it. */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { Script } from 'node:vm'
import type { SignatureEngines } from '#image/policy/requirement'
import * as errors from '#protocol/errors'

const FILE = '/usr/lib/caisson/signatures.js'
/** As guest/build/bundle.ts calls them. */
const SHARED_ERRORS = 'caisson-errors'

/** The bundle is a function of Node's module variables, ASCII, like the agent's own. */
type BundleFunction = (
  exports: object,
  require: (name: string) => unknown,
  module: { exports: object },
  ...names: string[]
) => void

export function lazySignatureEngines(): SignatureEngines {
  let loaded: SignatureEngines | undefined
  const load = (): SignatureEngines => {
    loaded ??= readEngines()
    return loaded
  }
  return { openpgp: async () => await load().openpgp(), bundles: async () => await load().bundles() }
}

function readEngines(): SignatureEngines {
  const module: { exports: { signatureEngines?: SignatureEngines } } = { exports: {} }
  const script = new Script(readFileSync(FILE, 'latin1'), { filename: FILE })
  const bundle = script.runInThisContext() as BundleFunction
  const builtins = createRequire(FILE)
  // The agent's own error classes: whoever catches what the engines throw asks for these.
  const require = (name: string): unknown => (name === SHARED_ERRORS ? errors : builtins(name))
  bundle(module.exports, require, module, FILE, '/usr/lib/caisson')
  const { signatureEngines } = module.exports
  if (signatureEngines === undefined) throw new TypeError(`${FILE} exports no signature engines`)
  return signatureEngines
}
