/** A verifier in a process of its own. Argument: its configuration as JSON. Prints its URL; ends when stdin does. */
import { startVerifier } from '#attestation/verifier/verifier'

const verifier = await startVerifier(JSON.parse(process.argv[2] ?? ''))
process.stdout.write(`${verifier.url}\n`)
process.stdin.resume().on('end', () => void verifier.close())
