/**
 * PCR values as `tpm2_quote --pcr` and `tpm2_pcrread --output` write them, in each of their formats:
 *
 * - `serialized`: the memory of TPML_PCR_SELECTION (132 bytes) and of each TPML_DIGEST (532 bytes) that the TPM answered
 *   with, integers little-endian, with a count of the latter between them;
 * - `marshaled`: TPML_PCR_SELECTION, a count, and so many TPML_DIGEST as the TPM marshals them, big-endian;
 * - `values`: the digests alone, in the order of the selection.
 *
 * The values are nobody's word until their hash is the one that was signed (`../verify/quoted-pcrs.ts`).
 */
import { ByteReader } from '#protocol/byte-reader'
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { MalformedError } from '#protocol/errors'
import { HASH_BYTES, hashAlgorithm } from './algorithms.ts'
import { type BankSelection, pcrsOf, readPcrSelections } from './pcr-selection.ts'

/** By bank and PCR number. */
export type PcrValues = ReadonlyMap<HashAlgorithm, ReadonlyMap<number, Uint8Array>>

const SELECTION_SLOTS = 16
const SELECTION_BYTES = 4 + 8 * SELECTION_SLOTS
const DIGEST_SLOTS = 8
const DIGEST_FIELD = 64
const LIST_BYTES = 4 + DIGEST_SLOTS * (2 + DIGEST_FIELD)
/** 24 PCRs of each of the banks that a TPM has room for, 8 to a list. */
const MAX_LISTS = 48

/** @param selections of the quote: `values` say nothing themselves. Throws `MalformedError` ERR_TPM_PCRS, ERR_TRUNCATED, … */
export function parsePcrFile(bytes: Uint8Array, selections: readonly BankSelection[]): PcrValues {
  const wanted = selections.flatMap(({ bank, pcrs }) => pcrs.map(() => HASH_BYTES[bank]))
  if (bytes.length === wanted.reduce((sum, length) => sum + length, 0)) return readPlain(bytes, selections)
  return isSerialized(bytes) ? readSerialized(bytes) : readMarshaled(bytes)
}

function readPlain(bytes: Uint8Array, selections: readonly BankSelection[]): PcrValues {
  const reader = new ByteReader(bytes, 'PCR values')
  return assign(selections, (bank) => reader.bytes(HASH_BYTES[bank]))
}

/** The sizes of C structures leave no doubt: nothing else is as long and counts itself so. */
function isSerialized(bytes: Uint8Array): boolean {
  const lists = bytes.length - SELECTION_BYTES - 4
  return lists >= 0 && lists % LIST_BYTES === 0 && (bytes[0] ?? 0) <= SELECTION_SLOTS && (bytes[0] ?? 0) > 0
}

function readSerialized(bytes: Uint8Array): PcrValues {
  const reader = new ByteReader(bytes, 'PCR file')
  const banks = reader.u32le()
  if (banks > SELECTION_SLOTS) throw malformed(`${banks} banks`)
  const selections: BankSelection[] = []
  for (let slot = 0; slot < SELECTION_SLOTS; slot++) {
    const algorithm = reader.u16le()
    const size = reader.u8()
    const bitmap = reader.bytes(4)
    reader.skip(1) // alignment of the next algorithm
    if (slot >= banks) continue // what lies behind the count is no one's
    if (size > bitmap.length) throw malformed(`selection of ${size} bytes`)
    selections.push({ bank: hashAlgorithm(algorithm, 'PCR file'), pcrs: pcrsOf(bitmap.subarray(0, size)) })
  }
  const lists = reader.u32le()
  if (lists > MAX_LISTS) throw malformed(`${lists} lists of digests`)
  const digests: Uint8Array[] = []
  for (let list = 0; list < lists; list++) {
    const count = reader.u32le()
    if (count > DIGEST_SLOTS) throw malformed(`${count} digests in a list`)
    for (let slot = 0; slot < DIGEST_SLOTS; slot++) {
      const size = reader.u16le()
      const digest = reader.bytes(DIGEST_FIELD)
      if (slot >= count) continue
      if (size > DIGEST_FIELD) throw malformed(`digest of ${size} bytes`)
      digests.push(digest.slice(0, size))
    }
  }
  reader.end()
  return inOrder(selections, digests)
}

function readMarshaled(bytes: Uint8Array): PcrValues {
  const reader = new ByteReader(bytes, 'PCR file')
  const selections = readPcrSelections(reader)
  const lists = reader.u32be()
  if (lists > MAX_LISTS) throw malformed(`${lists} lists of digests`)
  const digests: Uint8Array[] = []
  for (let list = 0; list < lists; list++) {
    const count = reader.u32be()
    if (count > DIGEST_SLOTS) throw malformed(`${count} digests in a list`)
    for (let slot = 0; slot < count; slot++) digests.push(reader.bytes(reader.u16be()))
  }
  reader.end()
  return inOrder(selections, digests)
}

function inOrder(selections: readonly BankSelection[], digests: readonly Uint8Array[]): PcrValues {
  let next = 0
  const values = assign(selections, (bank) => {
    const digest = digests[next++]
    if (digest?.length !== HASH_BYTES[bank]) throw malformed(`digest ${next} is not one of ${bank}`)
    return digest
  })
  if (next !== digests.length) throw malformed(`${digests.length} digests for ${next} selected PCRs`)
  return values
}

function assign(selections: readonly BankSelection[], take: (bank: HashAlgorithm) => Uint8Array): PcrValues {
  const banks = new Map<HashAlgorithm, Map<number, Uint8Array>>()
  for (const { bank, pcrs } of selections) {
    const values = banks.get(bank) ?? new Map<number, Uint8Array>()
    banks.set(bank, values)
    for (const pcr of pcrs) {
      if (values.has(pcr)) throw malformed(`PCR ${pcr} of ${bank} is selected twice`)
      values.set(pcr, take(bank))
    }
  }
  return banks
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_TPM_PCRS', `PCR values: ${why}`)
}
