/**
 * V8's code cache for the agent: what the compiler makes of the bundle, so that a start only reads it. Kernel to
 * listening agent under emulation takes 0.3 s of 4.3 less with it.
 *
 * A cache carries a hash of V8's flags, and its bytes depend on the process's random hash seed. So that equal bundles
 * give equal guests it is made under a fixed seed, and then marked with the flags of a start without one. The seed
 * itself decides nothing else: V8 rehashes what it reads, as it must for every cache of another process.
 */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { errorText, UnavailableError } from '#protocol/errors'

const run = promisify(execFile)

const COMPILER = fileURLToPath(new URL('compile-agent.cjs', import.meta.url))

/** V8 src/snapshot/code-serializer.h, SerializedCodeData: magic, version, source, flags, payload length, checksum. */
const FLAG_HASH_OFFSET = 12

/**
 * The cache for `source` as the Node binary `node` will accept it. Throws ERR_AGENT_CACHE when that Node cannot make
 * one or, started as the guest starts it, refuses it.
 */
export async function compileAgent(source: Uint8Array, node: string): Promise<Uint8Array> {
  const folder = await mkdtemp(join(tmpdir(), 'caisson-code-'))
  const [bundle, cache, plain] = ['bundle.js', 'cache', 'plain'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ]
  try {
    await writeFile(bundle, source)
    await run(node, ['--hash-seed=1', COMPILER, 'make', bundle, cache], { env: {} })
    await run(node, [COMPILER, 'make', bundle, plain], { env: {} })
    const bytes = await readFile(cache)
    const flags = (await readFile(plain)).readUInt32LE(FLAG_HASH_OFFSET)
    bytes.writeUInt32LE(flags, FLAG_HASH_OFFSET)
    await writeFile(cache, bytes)
    await run(node, [COMPILER, 'check', bundle, cache], { env: {} })
    return bytes
  } catch (cause) {
    throw new UnavailableError('ERR_AGENT_CACHE', `The agent could not be compiled: ${errorText(cause)}`, { cause })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
