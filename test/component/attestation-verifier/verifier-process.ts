/** A verifier in a process of its own. Argument: its configuration as JSON. Prints its URL; ends when stdin does. */
import { startVerifier } from '#attestation/verifier/verifier'
import { STORE_KEY } from './site.ts'

const verifier = await startVerifier({ ...JSON.parse(process.argv[2] ?? ''), storeKey: STORE_KEY })
process.stdout.write(`${verifier.url}\n`)
process.stdin.resume().on('end', () => void verifier.close())
