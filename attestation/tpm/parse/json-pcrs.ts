/**
 * PCR values in JSON: a list with all PCRs of a bank or with those of the quote, an object by bank and number, or the bytes of
 * a file of tpm2-tools.
 */
import type { JsonValue } from '#protocol/canonical-json'
import type { HashAlgorithm } from '#protocol/crypto-provider'
import type { JsonFields } from '#protocol/json-fields'
import { HASH_BYTES } from './algorithms.ts'
import { bytesOfJson, bytesOfValue } from './json-bytes.ts'
import type { BankSelection } from './pcr-selection.ts'
import { type PcrValues, parsePcrFile } from './pcr-values.ts'

const PCR_COUNT = 24
const MAX_FILE = 32 * 1024
const MAX_VALUE = 64

export interface PcrContext {
  readonly selections: readonly BankSelection[]
  /** Of values that do not name theirs, when the quote selects none or several. */
  readonly bank: HashAlgorithm
}

/** Reads the member `pcrs`. Throws `MalformedError` with the code of the fields, ERR_TPM_PCRS and others of the file. */
export function readPcrValues(fields: JsonFields, context: PcrContext): PcrValues {
  const value = fields.json('pcrs')
  if (typeof value === 'string') return parsePcrFile(bytesOfJson(fields, 'pcrs', MAX_FILE), context.selections)
  const [only, ...others] = context.selections.filter(({ pcrs }) => pcrs.length > 0)
  if (Array.isArray(value)) {
    const selection = others.length === 0 && only !== undefined ? only : { bank: context.bank, pcrs: [] }
    return new Map([[selection.bank, listed(fields, 'pcrs', selection)]])
  }
  const banks = fields.object('pcrs')
  return new Map(
    banks.names().map((name) => {
      const bank = bankOf(name)
      if (bank === undefined) throw banks.error(name.slice(0, 64), 'not a bank that is known')
      const selected = context.selections.find((selection) => selection.bank === bank)?.pcrs ?? []
      return [
        bank,
        Array.isArray(banks.json(name))
          ? listed(banks, name, { bank, pcrs: selected })
          : keyed(banks.object(name), bank),
      ]
    }),
  )
}

/** All 24, where what is not quoted may be empty, or exactly those that are quoted. */
function listed(fields: JsonFields, name: string, selection: BankSelection): ReadonlyMap<number, Uint8Array> {
  const value = fields.json(name)
  const list: readonly JsonValue[] = Array.isArray(value) ? value : []
  if (list.length !== PCR_COUNT && list.length !== selection.pcrs.length) {
    throw fields.error(name, `${list.length} values, ${PCR_COUNT} or the ${selection.pcrs.length} quoted are needed`)
  }
  const values = new Map<number, Uint8Array>()
  for (const [index, item] of list.entries()) {
    if (item === '' || (Array.isArray(item) && item.length === 0)) continue
    const pcr = list.length === PCR_COUNT ? index : (selection.pcrs[index] ?? index)
    const digest = bytesOfValue(item, MAX_VALUE)
    if (digest?.length !== HASH_BYTES[selection.bank]) {
      throw fields.error(name, `value ${index} is none of a PCR of ${selection.bank}`)
    }
    values.set(pcr, digest)
  }
  return values
}

function keyed(fields: JsonFields, bank: HashAlgorithm): ReadonlyMap<number, Uint8Array> {
  return new Map(
    fields.names().map((name) => {
      const pcr = /^(?:0|[1-9]\d?)$/.test(name) ? Number(name) : PCR_COUNT
      if (pcr >= PCR_COUNT) throw fields.error(name.slice(0, 64), 'not the number of a PCR')
      return [pcr, digestOf(fields, name, bank)]
    }),
  )
}

function digestOf(fields: JsonFields, name: string, bank: HashAlgorithm): Uint8Array {
  const value = bytesOfJson(fields, name, MAX_VALUE)
  if (value.length !== HASH_BYTES[bank]) throw fields.error(name, `${value.length} bytes are no value of ${bank}`)
  return value
}

function bankOf(name: string): HashAlgorithm | undefined {
  return name === 'sha1' || name === 'sha256' || name === 'sha384' || name === 'sha512' ? name : undefined
}
