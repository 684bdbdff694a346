/**
 * A verifier in a process of its own. Argument: its configuration as JSON, the store's key in hex. Prints its URL; a line
 * on standard input is answered with what memory it holds, with `--expose-gc` after a collection; ends with its input.
 */
import { createInterface } from 'node:readline'
import { startVerifier } from '#attestation/verifier/verifier'

const { storeKey, ...config } = JSON.parse(process.argv[2] ?? '')
const verifier = await startVerifier({ ...config, storeKey: Buffer.from(storeKey, 'hex') })
process.stdout.write(`${verifier.url}\n`)
const lines = createInterface({ input: process.stdin })
lines.on('line', () => {
  globalThis.gc?.()
  process.stdout.write(`${JSON.stringify(process.memoryUsage())}\n`)
})
lines.on('close', () => void verifier.close())
