/**
 * The HTTP/1.1 client of undici alone. The package's own entry loads fetch, WebSocket, caches, mocks and proxies, 390 kB
 * of code that nothing here calls and that every start would evaluate: 20 MiB of memory.
 */
module.exports = { Agent: require('undici/lib/dispatcher/agent') }
