/**
 * /usr/lib/caisson/agent.js: starts the bundle beside it with its code cache. The bundle is ASCII, and Latin-1 is how
 * V8 keeps that in one byte per character. A cache that this Node refuses costs time, nothing else.
 */
const { readFileSync } = require('node:fs')
const { Script } = require('node:vm')

const cachedData = readFileSync(`${__dirname}/bundle.cache`)
const script = new Script(readFileSync(`${__dirname}/bundle.js`, 'latin1'), { filename: __filename, cachedData })
script.runInThisContext()(exports, require, module, __filename, __dirname)
