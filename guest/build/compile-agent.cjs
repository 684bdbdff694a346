/**
 * compile-agent.cjs make|check BUNDLE CACHE
 *
 * Run by the guest's own Node: `make` writes the code cache of the bundle, `check` fails when this Node refuses it.
 * Nothing of the bundle is executed.
 */
const { readFileSync, writeFileSync } = require('node:fs')
const { Script } = require('node:vm')

const [, , mode, bundle, cache] = process.argv
const options = { filename: '/usr/lib/caisson/agent.js' }
if (mode === 'check') options.cachedData = readFileSync(cache)
const script = new Script(readFileSync(bundle, 'latin1'), options)
if (mode === 'make') writeFileSync(cache, script.createCachedData())
else if (script.cachedDataRejected !== false) throw new Error('the code cache is refused')
