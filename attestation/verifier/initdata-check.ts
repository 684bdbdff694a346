/**
 * Is the initdata of the answer what the guest was started with? The host hands its digest to the hardware: SNP HOST_DATA
 * (32 bytes), TDX MRCONFIGID (48), or PCR 8 of a virtual TPM, which is extended with it. The digest is cut, or padded with
 * zeros, to the field.
 */
import { parse } from 'smol-toml'
import { toHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import type { ClaimCheck } from '../store/attestation-log.ts'
import { extendPcr } from '../tpm/verify/replay.ts'

export interface InitdataField {
  /** "HOST_DATA", "MRCONFIGID", "PCR 8" */
  readonly name: string
  /** Hex, as the evidence says; undefined when it does not. */
  readonly found: string | undefined
  /** Bytes that the digest is cut or padded to. */
  readonly bytes: number
  /** Whether the field is a register that was extended with the digest. */
  readonly extended: boolean
}

const ALGORITHMS = ['sha256', 'sha384', 'sha512'] as const
const REMEDY = 'The host exchanged the initdata. Start the guest with the one that it sends, or do not trust the host.'

/** Undefined when the answer has none: then nothing is claimed of it. @throws MalformedError ERR_INITDATA_MALFORMED */
export function checkInitdata(field: InitdataField, toml: string | undefined): ClaimCheck | undefined {
  if (toml === undefined) return undefined
  const hash = nodeCrypto.createHash(algorithmOf(toml))
  hash.update(new TextEncoder().encode(toml))
  const fitted = new Uint8Array(field.bytes)
  fitted.set(hash.digest().subarray(0, field.bytes))
  const value = field.extended
    ? extendPcr(nodeCrypto, 'sha256', { pcr: new Uint8Array(field.bytes), digest: fitted })
    : fitted
  const expected = toHex(value)
  const check = { claim: `initdata, ${field.name}`, expected, found: field.found ?? 'none' }
  return expected === field.found ? { ...check, ok: true } : { ...check, ok: false, remedy: REMEDY }
}

function algorithmOf(toml: string): (typeof ALGORITHMS)[number] {
  let document: unknown
  try {
    document = parse(toml)
  } catch (cause) {
    throw new MalformedError('ERR_INITDATA_MALFORMED', 'initdata is not valid TOML', { cause })
  }
  const named = typeof document === 'object' && document !== null && 'algorithm' in document ? document.algorithm : ''
  const algorithm = ALGORITHMS.find((known) => known === String(named).toLowerCase().replace('-', ''))
  if (algorithm !== undefined) return algorithm
  throw new MalformedError(
    'ERR_INITDATA_MALFORMED',
    `initdata names the algorithm ${JSON.stringify(named)?.slice(0, 40)}`,
    {
      hint: `Use ${ALGORITHMS.join(', ')}.`,
    },
  )
}
