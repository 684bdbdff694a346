/**
 * SNP evidence in the shapes in which it travels: a bare report; a report followed by the host's table of certificates; the
 * answer of the guest device; JSON of CoCo's attesters; `outblob` and `auxblob` of configfs-tsm as JSON.
 */
import { MalformedError } from '#protocol/errors'
import { type ParsedCertificate, parseCertificate } from '../../x509/certificate.ts'
import { type ParsedCrl, parseCrl } from '../../x509/crl.ts'
import { parsePem } from '../../x509/pem.ts'
import { parseCertificateTable, type TableEntry } from './certificate-table.ts'
import { parseSnpReport, REPORT_BYTES, type SnpReport } from './report.ts'
import { bytesOfJson, membersOf, reportBytesOfJson } from './report-json.ts'

export interface SnpEvidence {
  readonly report: SnpReport
  /** What came with the report, in its order; not to be trusted by itself. */
  readonly certificates: readonly ParsedCertificate[]
  readonly crls: readonly ParsedCrl[]
}

const MAX_JSON_CHARS = 1024 * 1024
const MAX_CERTIFICATES = 16
/** MSG_REPORT_RSP: status, size of the report, 24 reserved bytes (AMD 56860, section 7.3). */
const RESPONSE_HEADER_BYTES = 32

/**
 * Bytes of a report with what may surround it, text of JSON, or JSON that was read already (its large integers as bigints
 * or text).
 *
 * Throws `MalformedError`: ERR_SNP_EVIDENCE, ERR_SNP_REPORT, ERR_SNP_CERTIFICATE_TABLE, ERR_TRUNCATED, and what certificates
 * and revocation lists are refused with.
 */
export function parseSnpEvidence(evidence: unknown): SnpEvidence {
  if (evidence instanceof Uint8Array) {
    return looksLikeJson(evidence) ? fromJson(readJson(decodeText(evidence))) : fromBytes(evidence)
  }
  return fromJson(typeof evidence === 'string' ? readJson(evidence) : evidence)
}

/** A report that came apart from its certificates, as inside Azure's HCL report. Throws as `parseSnpEvidence`. */
export function snpEvidenceOf(report: Uint8Array, certificates: readonly ParsedCertificate[]): SnpEvidence {
  return { report: parseSnpReport(report), certificates, crls: [] }
}

function fromBytes(bytes: Uint8Array): SnpEvidence {
  const inner = isDeviceResponse(bytes) ? bytes.subarray(RESPONSE_HEADER_BYTES) : bytes
  const padded = inner.length !== bytes.length && inner.subarray(REPORT_BYTES).every((byte) => byte === 0)
  const table = padded ? new Uint8Array() : inner.subarray(REPORT_BYTES)
  const report = parseSnpReport(inner.subarray(0, REPORT_BYTES))
  return { report, ...collect(parseCertificateTable(table)) }
}

/** Success, the size of a report, and nothing reserved. A bare report begins with a version that is not 0. */
function isDeviceResponse(bytes: Uint8Array): boolean {
  if (bytes.length < RESPONSE_HEADER_BYTES + REPORT_BYTES) return false
  const view = new DataView(bytes.buffer, bytes.byteOffset, RESPONSE_HEADER_BYTES)
  const reserved = bytes.subarray(8, RESPONSE_HEADER_BYTES)
  return (
    view.getUint32(0, true) === 0 && view.getUint32(4, true) === REPORT_BYTES && reserved.every((byte) => byte === 0)
  )
}

function fromJson(value: unknown): SnpEvidence {
  const members = membersOf(value, 'evidence')
  if (members.outblob !== undefined) return fromConfigfs(members)
  const reportJson = members.attestation_report
  const isText = typeof reportJson === 'string' || Array.isArray(reportJson)
  const bytes = isText ? bytesOfJson(reportJson, 'attestation_report', REPORT_BYTES) : reportBytesOfJson(reportJson)
  return { report: parseSnpReport(bytes), ...collect(chainEntries(members.cert_chain)) }
}

function fromConfigfs(members: Readonly<Record<string, unknown>>): SnpEvidence {
  const table = members.auxblob
  const entries = table === undefined || table === null ? [] : parseCertificateTable(bytesOfJson(table, 'auxblob'))
  return { report: parseSnpReport(bytesOfJson(members.outblob, 'outblob', REPORT_BYTES)), ...collect(entries) }
}

/** `cert_chain` of CoCo: absent, null, or entries of `cert_type` and `data`. */
function chainEntries(chain: unknown): Pick<TableEntry, 'kind' | 'bytes'>[] {
  if (chain === undefined || chain === null) return []
  if (!Array.isArray(chain) || chain.length > MAX_CERTIFICATES) throw malformed('cert_chain: a short array is needed')
  return chain.map((value, index) => {
    const entry = membersOf(value, `cert_chain[${index}]`)
    const { data } = entry
    const isPem = typeof data === 'string' && data.includes('-----BEGIN ')
    const bytes = isPem ? new TextEncoder().encode(data) : bytesOfJson(data, `cert_chain[${index}].data`)
    return { kind: entryKind(entry.cert_type), bytes }
  })
}

/** "OTHER" with its GUID, "Empty" and whatever else is no certificate that is known here. */
function entryKind(type: unknown): TableEntry['kind'] {
  const kinds: Readonly<Record<string, TableEntry['kind']>> = {
    VCEK: 'vcek',
    VLEK: 'vlek',
    ASK: 'ask',
    ASVK: 'ask',
    ARK: 'ark',
    CRL: 'crl',
  }
  return typeof type === 'string' && Object.hasOwn(kinds, type) ? kinds[type] : undefined
}

/** Entries of unknown kinds are the host's own matter. */
function collect(entries: readonly Pick<TableEntry, 'kind' | 'bytes'>[]): Omit<SnpEvidence, 'report'> {
  const known = entries.filter(({ kind, bytes }) => kind !== undefined && bytes.length > 0)
  return {
    certificates: known.filter(({ kind }) => kind !== 'crl').flatMap(({ bytes }) => readCertificates(bytes)),
    crls: known.filter(({ kind }) => kind === 'crl').flatMap(({ bytes }) => readCrls(bytes)),
  }
}

function readCertificates(bytes: Uint8Array): ParsedCertificate[] {
  const blocks = pemBlocks(bytes)
  if (blocks === undefined) return [parseCertificate(bytes)]
  return blocks.filter(({ label }) => label === 'CERTIFICATE').map((block) => parseCertificate(block.bytes))
}

function readCrls(bytes: Uint8Array): ParsedCrl[] {
  const blocks = pemBlocks(bytes)
  if (blocks === undefined) return [parseCrl(bytes)]
  return blocks.filter(({ label }) => label === 'X509 CRL').map((block) => parseCrl(block.bytes))
}

/** Undefined: DER, which begins with a SEQUENCE. */
function pemBlocks(bytes: Uint8Array): ReturnType<typeof parsePem> | undefined {
  if (bytes[0] === 0x30) return undefined
  const blocks = parsePem(decodeText(bytes))
  if (blocks.length === 0 || blocks.length > MAX_CERTIFICATES) throw malformed(`${blocks.length} certificates in PEM`)
  return blocks
}

function looksLikeJson(bytes: Uint8Array): boolean {
  const first = bytes.find((byte) => byte !== 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d)
  return first === 0x7b
}

/** Integers too large for a number become bigints: 64-bit fields must keep every bit. */
function readJson(text: string): unknown {
  if (text.length > MAX_JSON_CHARS) throw malformed(`${text.length} characters, at most ${MAX_JSON_CHARS} are read`)
  const exact = (_name: string, value: unknown, context?: { readonly source?: string }): unknown =>
    typeof value === 'number' && !Number.isSafeInteger(value) && /^\d{1,20}$/.test(context?.source ?? '')
      ? BigInt(context?.source ?? '')
      : value
  try {
    return JSON.parse(text, exact as (name: string, value: unknown) => unknown)
  } catch (cause) {
    throw new MalformedError('ERR_SNP_EVIDENCE', 'SNP evidence: not JSON', { cause })
  }
}

function decodeText(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new MalformedError('ERR_SNP_EVIDENCE', 'SNP evidence: text that is not UTF-8', { cause })
  }
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_SNP_EVIDENCE', `SNP evidence: ${why}`)
}
