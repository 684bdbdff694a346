/**
 * The HTTP/1.1 client of undici alone. The package's own entry loads fetch, WebSocket, caches, mocks and proxies, 390 kB
 * of code that nothing here calls and that every start would evaluate: 20 MiB of memory.
 */
const Agent = require('undici/lib/dispatcher/agent')
const Dispatcher = require('undici/lib/dispatcher/dispatcher')

// What undici/index.js does to give dispatchers their `request`.
Object.assign(Dispatcher.prototype, require('undici/lib/api'))

module.exports = { Agent }
