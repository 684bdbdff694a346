/** registries.d folders and lookaside storage on this machine's own disk. */
import { readdirSync, readFileSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { errorText, MalformedError, UnavailableError } from '#protocol/errors'
import type { HttpTransport } from '#protocol/http-transport'
import type { Digest } from '#protocol/oci/digest'
import type { ImageReference } from '#protocol/oci/reference'
import { DEFAULT_LIMITS } from '../limits.ts'
import type { FoundSignature } from '../signature/found.ts'
import { lookasideSignatures } from '../signature/lookaside.ts'
import { type LookasideConfig, parseRegistriesD } from '../signature/registries-d.ts'

/** Files that end in ".yaml", as containers-registries.d(5) says. Throws ERR_REGISTRIES_D. */
export function readRegistriesD(folder: string): LookasideConfig {
  let names: readonly string[]
  try {
    names = readdirSync(folder).filter((name) => name.endsWith('.yaml'))
  } catch (cause) {
    throw new MalformedError('ERR_REGISTRIES_D', `registries.d: ${folder}: ${errorText(cause)}`, { cause })
  }
  return parseRegistriesD([...names].sort().map((name) => ({ name, text: readFileSync(join(folder, name), 'utf8') })))
}

export function lookasideFiles(
  config: LookasideConfig,
  http: HttpTransport,
): (reference: ImageReference, digest: Digest) => Promise<readonly FoundSignature[]> {
  return lookasideSignatures({ config, http, limits: DEFAULT_LIMITS, readFile: readBounded })
}

async function readBounded(path: string, maxBytes: number): Promise<Uint8Array | undefined> {
  try {
    const { size } = await stat(path)
    if (size > maxBytes)
      throw new MalformedError('ERR_LOOKASIDE', `${path}: ${size} bytes, at most ${maxBytes} are read`)
    return await readFile(path)
  } catch (cause) {
    if (cause instanceof MalformedError) throw cause
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new UnavailableError('ERR_LOOKASIDE', `${path}: ${errorText(cause)}`, { cause })
  }
}
