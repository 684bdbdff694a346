/**
 * Is the initdata of the answer what the guest was started with? The host hands its digest to the hardware: SNP HOST_DATA
 * (32 bytes), TDX MRCONFIGID (48), or PCR 8 of a virtual TPM, which is extended with it. The digest is cut, or padded with
 * zeros, to the field.
 */
import { toHex } from '#protocol/encoding'
import { nodeCrypto } from '#protocol/node/crypto'
import type { ClaimCheck } from '../store/attestation-log.ts'
import { extendPcr } from '../tpm/verify/replay.ts'
import type { InitdataDocument } from './initdata-document.ts'

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

const REMEDY = 'The host exchanged the initdata. Start the guest with the one that it sends, or do not trust the host.'

/** Undefined when the answer has none: then nothing is claimed of it. */
export function checkInitdata(field: InitdataField, initdata: InitdataDocument | undefined): ClaimCheck | undefined {
  if (initdata === undefined) return undefined
  const fitted = new Uint8Array(field.bytes)
  fitted.set(initdata.digest.subarray(0, field.bytes))
  const value = field.extended
    ? extendPcr(nodeCrypto, 'sha256', { pcr: new Uint8Array(field.bytes), digest: fitted })
    : fitted
  const expected = toHex(value)
  const check = { claim: `initdata, ${field.name}`, expected, found: field.found ?? 'none' }
  return expected === field.found ? { ...check, ok: true } : { ...check, ok: false, remedy: REMEDY }
}
