/**
 * Evidence of Azure's confidential machines as Confidential Containers' agents send it (attester `az-snp-vtpm` and
 * `az-tdx-vtpm`). Version 0 has arrays of numbers and PEM, versions 1 and 2 base64url and hexadecimal:
 *
 * - SNP, 0: `{quote, report, vcek}`; 1 and 2: `{version, tpm_quote, hcl_report, vcek}`;
 * - TDX, 0: `{tpm_quote, hcl_report, td_quote}`; 1: with `version`.
 *
 * The bare report of the paravisor, as it is read from the TPM, is evidence of the hardware's half alone.
 */
import type { JsonValue } from '#protocol/canonical-json'
import { MalformedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import { type SnpEvidence, snpEvidenceOf } from '../../snp/parse/evidence.ts'
import { type TdxEvidence, tdxEvidenceOf } from '../../tdx/parse/evidence.ts'
import { readQuote, type TpmQuoteEvidence } from '../../tpm/parse/evidence.ts'
import { bytesOfJson } from '../../tpm/parse/json-bytes.ts'
import { type ParsedCertificate, parseCertificate } from '../../x509/certificate.ts'
import { parsePem } from '../../x509/pem.ts'
import { type HclReport, parseHclReport } from './hcl-report.ts'

interface AzureEvidenceCommon {
  readonly hcl: HclReport
  /** Undefined for a bare report. */
  readonly quote: TpmQuoteEvidence | undefined
}

export type AzureEvidence = AzureEvidenceCommon &
  (
    | { readonly form: 'az-snp-vtpm' | 'hcl-report'; readonly version: 0 | 1 | 2; readonly snp: SnpEvidence }
    | { readonly form: 'az-tdx-vtpm'; readonly version: 0 | 1; readonly tdx: TdxEvidence }
  )

const CODE = 'ERR_AZURE_EVIDENCE'
const MAX_HCL = 64 * 1024
const MAX_TD_QUOTE = 64 * 1024
const MAX_CERTIFICATES = 64 * 1024
const QUOTE_MEMBERS = { message: 'message', signature: 'signature' } as const

/** Whether a document has the members of one of the shapes; nothing is read. */
export function isAzureEvidence(document: JsonValue): boolean {
  return formOf(document) !== undefined
}

/** Throws `MalformedError` ERR_AZURE_EVIDENCE, ERR_HCL_REPORT and the codes of quotes and certificates. */
export function parseAzureEvidence(document: JsonValue): AzureEvidence {
  const fields = new JsonFields(document, 'evidence', CODE)
  const form = formOf(document)
  if (form === undefined) throw new MalformedError(CODE, 'evidence: not of a confidential machine of Azure')
  const old = fields.has('report')
  const hcl = parseHclReport(bytesOfJson(fields, old ? 'report' : 'hcl_report', MAX_HCL))
  const quote = readQuote(fields.object(old ? 'quote' : 'tpm_quote'), QUOTE_MEMBERS, 'sha256')
  if (form === 'az-tdx-vtpm') {
    if (hcl.kind !== 'tdx') throw fields.error('hcl_report', 'a TD quote came with the report of an SNP machine')
    const version = fields.has('version') ? fields.integer('version', 1, 1) : 0
    const tdx = tdxEvidenceOf(bytesOfJson(fields, 'td_quote', MAX_TD_QUOTE), undefined)
    return { form, version: version === 1 ? 1 : 0, hcl, quote, tdx }
  }
  if (hcl.kind !== 'snp') throw fields.error('hcl_report', 'the report of a TDX machine came without its TD quote')
  const version = old ? 0 : fields.integer('version', 1, 2)
  const certificates = fields.has('vcek') ? certificatesOf(bytesOfJson(fields, 'vcek', MAX_CERTIFICATES)) : []
  const snp = snpEvidenceOf(hcl.hardwareReport, certificates)
  return { form, version: version === 2 ? 2 : version === 1 ? 1 : 0, hcl, quote, snp }
}

/**
 * The bare report of the paravisor on an SNP machine. Throws as `parseHclReport`, and ERR_AZURE_EVIDENCE for one on a TDX
 * machine: what it holds then is the local TDREPORT, which only the machine itself can check.
 */
export function parseAzureReport(bytes: Uint8Array): AzureEvidence {
  const hcl = parseHclReport(bytes)
  if (hcl.kind === 'tdx') {
    throw new MalformedError(CODE, 'evidence: the report of a TDX machine proves nothing without its TD quote', {
      hint: 'Send { tpm_quote, hcl_report, td_quote }; the quote comes from Azure’s metadata service.',
    })
  }
  return { form: 'hcl-report', version: 0, hcl, quote: undefined, snp: snpEvidenceOf(hcl.hardwareReport, []) }
}

function formOf(document: JsonValue): AzureEvidence['form'] | undefined {
  if (typeof document !== 'object' || document === null || Array.isArray(document)) return undefined
  const has = (...names: readonly string[]): boolean => names.every((name) => Object.hasOwn(document, name))
  if (has('tpm_quote', 'hcl_report', 'td_quote')) return 'az-tdx-vtpm'
  return has('tpm_quote', 'hcl_report') || has('quote', 'report') ? 'az-snp-vtpm' : undefined
}

function certificatesOf(bytes: Uint8Array): ParsedCertificate[] {
  if (bytes[0] === 0x30) return [parseCertificate(bytes)]
  return parsePem(new TextDecoder().decode(bytes)).map(({ bytes: der }) => parseCertificate(der))
}
