/**
 * Evidence of a TPM as it lies in a file. Shapes, told by their members:
 *
 * - `caisson`: what our agent sends (`#protocol/tpm-messages`), with event log and images;
 * - `coco-tpm`: Confidential Containers' TPM attester: `{ak_public, tpm_quote: {signature, message, pcrs}, report_data}`;
 * - `coco-tpm-banks`: the same with a quote for each bank: `{ak_pubkey, ek_cert, quote: {SHA256: {attest_body, attest_sig,
 *   pcrs}}, eventlog}`;
 * - `tpm2-tools`: the files of `tpm2_quote` in one document: `{message, signature, public_key, pcrs, event_log,
 *   certificates}`, of which `message` and `signature` are required.
 *
 * Bytes are hexadecimal, base64, base64url, PEM, or arrays of numbers; each structure says itself whether it was read right.
 */
import type { JsonValue } from '#protocol/canonical-json'
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { MalformedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import { type AdmittedImage, parseAdmittedImage } from '#protocol/tpm-messages'
import { type ParsedCertificate, parseCertificate } from '../../x509/certificate.ts'
import { parsePem } from '../../x509/pem.ts'
import { parseQuoteAttest, type QuoteAttest } from './attest.ts'
import { type EventLog, MAX_EVENT_LOG_BYTES, parseEventLog } from './event-log.ts'
import { bytesOfJson, bytesOfValue } from './json-bytes.ts'
import { readPcrValues } from './json-pcrs.ts'
import type { PcrValues } from './pcr-values.ts'
import { parseQuoteKey, type QuoteKey } from './quote-key.ts'
import { parseQuoteSignature, type QuoteSignature } from './signature.ts'
import { unwrapTpm2b } from './tpm2b.ts'

export type TpmEvidenceForm = 'caisson' | 'coco-tpm' | 'coco-tpm-banks' | 'tpm2-tools'

export interface TpmQuoteEvidence {
  /** TPMS_ATTEST, the exact bytes that are signed. */
  readonly message: Uint8Array
  readonly attest: QuoteAttest
  readonly signature: QuoteSignature
  /** Undefined when the file has no values. */
  readonly pcrs: PcrValues | undefined
}

export interface TpmFileEvidence {
  readonly form: TpmEvidenceForm
  /** At least one. */
  readonly quotes: readonly TpmQuoteEvidence[]
  /** Undefined when only a certificate names it. */
  readonly key: QuoteKey | undefined
  /** Of attestation keys, endorsement keys and their CAs. */
  readonly certificates: readonly ParsedCertificate[]
  readonly eventLog: EventLog | undefined
  /** What the sender says the quote is bound to. */
  readonly reportData: Uint8Array | undefined
  /** What our agent says it admitted into PCR 15. */
  readonly images: readonly AdmittedImage[] | undefined
}

const CODE = 'ERR_TPM_EVIDENCE'
const MAX_STRUCTURE = 4096
const MAX_KEY = 8192
const MAX_REPORT_DATA = 64
const MAX_IMAGES = 256
const MAX_CERTIFICATES = 16
const MAX_CERTIFICATE_BYTES: number = 64 * 1024
const BANKS: Readonly<Record<string, HashAlgorithm>> = {
  SHA1: 'sha1',
  SHA256: 'sha256',
  SHA384: 'sha384',
  SHA512: 'sha512',
}

/**
 * Throws `MalformedError` ERR_TPM_EVIDENCE, ERR_TPM_NOT_A_QUOTE and the codes of what it holds: public areas, signatures,
 * PCR values, event logs, certificates.
 */
export function parseTpmEvidence(document: JsonValue): TpmFileEvidence {
  const fields = new JsonFields(document, 'evidence', CODE)
  const form = formOf(fields.names())
  if (form === undefined) {
    throw new MalformedError(CODE, 'evidence: no TPM quote in any shape that is known', {
      hint: 'Known are { ak_public, tpm_quote }, { ak_pubkey, quote } and { message, signature, public_key, pcrs }.',
    })
  }
  if (form === 'coco-tpm-banks') return readBanks(fields)
  if (form === 'tpm2-tools') return readTools(fields)
  return readAgent(fields, form)
}

function formOf(members: readonly string[]): TpmEvidenceForm | undefined {
  const has = (...names: readonly string[]): boolean => names.every((name) => members.includes(name))
  if (has('hcl_report')) return undefined
  if (has('tpm_quote', 'ak_public')) return has('credential_secret') ? 'caisson' : 'coco-tpm'
  if (has('quote', 'ak_pubkey')) return 'coco-tpm-banks'
  return has('message', 'signature') ? 'tpm2-tools' : undefined
}

function readAgent(fields: JsonFields, form: 'caisson' | 'coco-tpm'): TpmFileEvidence {
  return {
    form,
    quotes: [readQuote(fields.object('tpm_quote'), { message: 'message', signature: 'signature' }, 'sha256')],
    key: parseQuoteKey(bytesOfJson(fields, 'ak_public', MAX_KEY)),
    certificates: readCertificates(fields, ['certificates', 'ak_certificate', 'ek_certificate']),
    eventLog: readEventLog(fields, 'event_log'),
    reportData: fields.has('report_data') ? bytesOfJson(fields, 'report_data', MAX_REPORT_DATA) : undefined,
    images: fields.has('images') ? fields.objects('images', MAX_IMAGES).map(parseAdmittedImage) : undefined,
  }
}

function readBanks(fields: JsonFields): TpmFileEvidence {
  const quotes = fields.object('quote')
  const names = quotes.names()
  if (names.length === 0 || names.length > Object.keys(BANKS).length) {
    throw fields.error('quote', `${names.length} quotes, 1 to ${Object.keys(BANKS).length} are read`)
  }
  return {
    form: 'coco-tpm-banks',
    quotes: names.map((name) => {
      const bank = BANKS[name.toUpperCase().replace('-', '')]
      if (bank === undefined) throw quotes.error(name.slice(0, 64), 'not a bank that is known')
      return readQuote(quotes.object(name), { message: 'attest_body', signature: 'attest_sig' }, bank)
    }),
    key: parseQuoteKey(bytesOfJson(fields, 'ak_pubkey', MAX_KEY)),
    certificates: readCertificates(fields, ['ek_cert', 'certificates']),
    eventLog: readEventLog(fields, 'eventlog'),
    reportData: undefined,
    images: undefined,
  }
}

function readTools(fields: JsonFields): TpmFileEvidence {
  const key = fields.has('public_key') ? parseQuoteKey(bytesOfJson(fields, 'public_key', MAX_KEY)) : undefined
  const certificates = readCertificates(fields, ['certificates'])
  if (key === undefined && certificates.length === 0) {
    throw fields.error('public_key', 'missing, and no certificate names the attestation key')
  }
  return {
    form: 'tpm2-tools',
    quotes: [readQuote(fields, { message: 'message', signature: 'signature' }, 'sha256')],
    key,
    certificates,
    eventLog: readEventLog(fields, 'event_log'),
    reportData: undefined,
    images: undefined,
  }
}

/** @param bank of PCR values that do not name theirs, unless the quote selects just one */
export function readQuote(
  fields: JsonFields,
  names: { readonly message: string; readonly signature: string },
  bank: HashAlgorithm,
): TpmQuoteEvidence {
  const message = unwrapTpm2b(bytesOfJson(fields, names.message, MAX_STRUCTURE))
  const attest = parseQuoteAttest(message)
  return {
    message,
    attest,
    signature: parseQuoteSignature(bytesOfJson(fields, names.signature, MAX_STRUCTURE)),
    pcrs: fields.has('pcrs') ? readPcrValues(fields, { selections: attest.selections, bank }) : undefined,
  }
}

function readEventLog(fields: JsonFields, name: string): EventLog | undefined {
  return fields.has(name) ? parseEventLog(bytesOfJson(fields, name, MAX_EVENT_LOG_BYTES)) : undefined
}

/** PEM with any number of them, or one in DER, in each of the members or lists. */
function readCertificates(fields: JsonFields, names: readonly string[]): ParsedCertificate[] {
  const found = names.flatMap((name) => {
    if (!fields.has(name)) return []
    const value = fields.json(name)
    const list = Array.isArray(value) && value.every((item) => typeof item !== 'number') ? value : [value]
    if (list.length > MAX_CERTIFICATES) throw fields.error(name, `more than ${MAX_CERTIFICATES} certificates`)
    return list.flatMap((item) => {
      const bytes = bytesOfValue(item, MAX_CERTIFICATE_BYTES)
      if (bytes === undefined) throw fields.error(name, 'neither PEM, nor DER in base64 or hexadecimal')
      return certificatesOf(bytes)
    })
  })
  if (found.length > MAX_CERTIFICATES) throw new MalformedError(CODE, `evidence: ${found.length} certificates`)
  return found
}

function certificatesOf(bytes: Uint8Array): ParsedCertificate[] {
  if (bytes[0] === 0x30) return [parseCertificate(bytes)]
  return parsePem(new TextDecoder().decode(bytes)).map(({ bytes: der }) => parseCertificate(der))
}
