/** A document of reference values, whatever the platform: its member `platform` says which. */
import { JsonFields } from '#protocol/json-fields'
import { parseReferenceValues, type TpmReferenceValues } from './reference-values.ts'
import { parseSnpReferenceValues, type SnpReferenceValues } from './snp/reference-values.ts'
import { parseTdxReferenceValues, type TdxReferenceValues } from './tdx/reference-values.ts'

export type ReferenceDocument = TpmReferenceValues | SnpReferenceValues | TdxReferenceValues

const MAX_CHARS = 1024 * 1024
/** Documents are few and read at each attestation; texts that were read stay read. */
const MAX_KEPT = 256
const kept = new Map<string, ReferenceDocument>()

/** Throws `MalformedError` ERR_REFERENCE_VALUES. */
export function parseReferenceDocument(text: string): ReferenceDocument {
  const known = kept.get(text)
  if (known !== undefined) return known
  const fields = JsonFields.parse(text, 'reference values', { code: 'ERR_REFERENCE_VALUES', maxChars: MAX_CHARS })
  const document = READERS[fields.oneOf('platform', ['tpm', 'snp', 'tdx'])](text)
  const [oldest] = kept.keys()
  if (kept.size >= MAX_KEPT && oldest !== undefined) kept.delete(oldest)
  kept.set(text, document)
  return document
}

const READERS: Readonly<Record<ReferenceDocument['platform'], (text: string) => ReferenceDocument>> = {
  tpm: parseReferenceValues,
  snp: parseSnpReferenceValues,
  tdx: parseTdxReferenceValues,
}
