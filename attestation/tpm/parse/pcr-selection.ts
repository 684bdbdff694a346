/** TPML_PCR_SELECTION (TPM 2.0 part 2, section 10.9.7): which PCRs of which bank. */
import type { ByteReader } from '#protocol/byte-reader'
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { concatBytes } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { hashAlgorithm, hashAlgorithmId } from './algorithms.ts'
import { u8, u16, u32 } from './marshal.ts'

/** TPML_PCR_SELECTION holds at most this many banks (HASH_COUNT). */
const MAX_BANKS = 16
/** PC client TPMs have 24 PCRs, so three bytes of bitmap and no other number. */
const SELECT_BYTES = 3

export interface BankSelection {
  readonly bank: HashAlgorithm
  /** Ascending. Empty when the TPM does not have the bank: it then selects nothing without an error. */
  readonly pcrs: readonly number[]
}

/** Throws `MalformedError` ERR_TPM_SELECTION, ERR_TPM_ALGORITHM, ERR_TRUNCATED. */
export function readPcrSelections(reader: ByteReader): BankSelection[] {
  const count = reader.u32be()
  if (count > MAX_BANKS) {
    throw new MalformedError('ERR_TPM_SELECTION', `PCR selection of ${count} banks, at most ${MAX_BANKS} are read`)
  }
  const selections: BankSelection[] = []
  for (let index = 0; index < count; index++) {
    const bank = hashAlgorithm(reader.u16be(), 'PCR selection')
    const size = reader.u8()
    if (size !== SELECT_BYTES) {
      throw new MalformedError('ERR_TPM_SELECTION', `PCR selection bitmap of ${size} bytes, ${SELECT_BYTES} are needed`)
    }
    const bitmap = reader.bytes(SELECT_BYTES)
    selections.push({ bank, pcrs: pcrsOf(bitmap) })
  }
  return selections
}

export function encodePcrSelections(selections: readonly BankSelection[]): Uint8Array {
  return concatBytes(
    u32(selections.length),
    ...selections.flatMap(({ bank, pcrs }) => [u16(hashAlgorithmId(bank)), u8(SELECT_BYTES), bitmapOf(pcrs)]),
  )
}

/** PCR n is bit n%8 of byte n/8. */
export function pcrsOf(bitmap: Uint8Array): number[] {
  return Array.from({ length: 8 * bitmap.length }, (_, pcr) => pcr).filter(
    (pcr) => (((bitmap[pcr >> 3] ?? 0) >> (pcr & 7)) & 1) === 1,
  )
}

function bitmapOf(pcrs: readonly number[]): Uint8Array {
  const bitmap = new Uint8Array(SELECT_BYTES)
  for (const pcr of pcrs) {
    if (!Number.isInteger(pcr) || pcr < 0 || pcr >= 8 * SELECT_BYTES) throw new RangeError(`PCR ${pcr}`)
    bitmap[pcr >> 3] = (bitmap[pcr >> 3] ?? 0) | (1 << (pcr & 7))
  }
  return bitmap
}
