/**
 * TPMS_ATTEST of a quote (TPM 2.0 part 2, sections 10.12.8 and 10.12.12): bytes to fields. A parsed quote is not a
 * verified one: see `../verify/quote.ts`.
 */
import { ByteReader } from '#protocol/byte-reader'
import { MalformedError } from '#protocol/errors'
import { type BankSelection, readPcrSelections } from './pcr-selection.ts'

/** TPM_GENERATED_VALUE: a restricted key signs nothing from outside that begins so. */
const TPM_GENERATED = 0xff54_4347
const ATTEST_QUOTE = 0x8018

export interface QuoteAttest {
  /** The key's qualified name, as the TPM sees it. */
  readonly qualifiedSigner: Uint8Array
  /** qualifyingData of TPM2_Quote. */
  readonly extraData: Uint8Array
  /** Milliseconds. */
  readonly clock: bigint
  /** TPM resets so far; true only for keys of the endorsement or platform hierarchy. */
  readonly resetCount: number
  readonly restartCount: number
  readonly clockSafe: boolean
  readonly firmwareVersion: bigint
  readonly selections: readonly BankSelection[]
  readonly pcrDigest: Uint8Array
}

/** Throws `MalformedError` ERR_TPM_NOT_A_QUOTE, ERR_TPM_SELECTION, ERR_TPM_ALGORITHM, ERR_TRUNCATED, ERR_TRAILING_BYTES. */
export function parseQuoteAttest(bytes: Uint8Array): QuoteAttest {
  const reader = new ByteReader(bytes, 'TPMS_ATTEST')
  const magic = reader.u32be()
  if (magic !== TPM_GENERATED) {
    throw new MalformedError('ERR_TPM_NOT_A_QUOTE', `TPMS_ATTEST: magic 0x${magic.toString(16)}, not made by a TPM`)
  }
  const type = reader.u16be()
  if (type !== ATTEST_QUOTE) {
    throw new MalformedError('ERR_TPM_NOT_A_QUOTE', `TPMS_ATTEST: type 0x${type.toString(16)} is not a quote`)
  }
  const attest = {
    qualifiedSigner: reader.bytes(reader.u16be()),
    extraData: reader.bytes(reader.u16be()),
    clock: reader.u64be(),
    resetCount: reader.u32be(),
    restartCount: reader.u32be(),
    clockSafe: yesNo(reader.u8()),
    firmwareVersion: reader.u64be(),
    selections: readPcrSelections(reader),
    pcrDigest: reader.bytes(reader.u16be()),
  }
  reader.end()
  return attest
}

/** TPMI_YES_NO has two values. */
function yesNo(byte: number): boolean {
  if (byte > 1) throw new MalformedError('ERR_TPM_NOT_A_QUOTE', `TPMS_ATTEST: safe flag ${byte} is neither 0 nor 1`)
  return byte === 1
}
