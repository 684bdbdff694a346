/**
 * The judgement of TDX evidence: is the quote genuine, made by Intel's quoting enclave on a platform that Intel vouches for
 * and calls up to date, of a TD that the host cannot look into, and does it belong to the nonce and the event log?
 */
import { equalBytes, toHex } from '#protocol/encoding'
import { UsageError } from '#protocol/errors'
import type { AppraisalContext } from '../evidence/context.ts'
import type { Appraisal, Finding } from '../evidence/verdict.ts'
import { claimsOf } from './claims.ts'
import { eventLogFindings, runtimeLogFindings } from './evaluate/event-log.ts'
import { evaluateQe } from './evaluate/qe-identity.ts'
import { evaluateTcb, moduleIdentity, type TcbEvaluation } from './evaluate/tcb-status.ts'
import { attributeFindings, moduleFindings, xfamFindings } from './evaluate/td-attributes.ts'
import { distinctFindings } from './findings.ts'
import { isDebugEnclave } from './parse/enclave-report.ts'
import type { TdxEvidence } from './parse/evidence.ts'
import { isIntelQuote, type Quote, QuoteError } from './parse/quote.ts'
import type { IsvSvnLevel } from './parse/tcb-info.ts'
import type { TdReport } from './parse/td-report.ts'
import { tdxTrustVector } from './trust-vector.ts'
import type { EnclaveCache } from './verify/enclave-cache.ts'
import { type Endorsement, endorse } from './verify/endorsement.ts'
import type { EndorsementCache } from './verify/endorsement-cache.ts'
import { bindsAttestationKey, verifyQeReport, verifyQuoteSignature } from './verify/quote-signature.ts'

const REPORT_DATA_BYTES = 64

/**
 * Synchronous and short: about a millisecond and a half with everything verified anew, a quarter of one with a cache.
 *
 * Throws `MalformedError` where something cannot be read (`QuoteError` ERR_QUOTE_UNSUPPORTED for quotes of SGX), and
 * `UsageError` ERR_NONCE for a nonce that no report data can hold. Every "no" is a finding.
 *
 * @param cache what was verified before; the verdict is the same without it
 */
export function appraiseTdx(evidence: TdxEvidence, context: AppraisalContext, cache?: EndorsementCache): Appraisal {
  const { quote, eventLog, runtimeLog } = evidence
  const { body } = quote
  if (body.tee !== 'tdx') {
    throw new QuoteError('ERR_QUOTE_UNSUPPORTED', 'quote: it is of an SGX enclave, not of a TD', {
      hint: 'Evidence of enclaves is not judged here.',
    })
  }
  const { report } = body
  const judged = judgeQuote(quote, context, cache)
  const module = judged.endorsement.tcbInfo && moduleIdentity(judged.endorsement.tcbInfo, report.teeTcbSvn)
  const findings = distinctFindings([
    ...judged.findings,
    ...moduleFindings(report, module),
    ...attributeFindings(report),
    ...xfamFindings(report),
    ...nonceFindings(report, context.nonce),
    ...(eventLog === undefined ? [] : eventLogFindings(eventLog, report, runtimeLog !== undefined)),
    ...(runtimeLog === undefined ? [] : runtimeLogFindings(runtimeLog, eventLog, report)),
  ])
  return {
    tee: 'tdx',
    claims: claimsOf(evidence, report, judged),
    trustworthiness: tdxTrustVector(findings),
    findings,
  }
}

export interface JudgedQuote {
  readonly endorsement: Endorsement
  /** Undefined when the platform's versions were not judged. */
  readonly tcb: TcbEvaluation | undefined
  readonly findings: readonly Finding[]
}

/** What quotes of SGX and TDX have in common: signatures, chain, quoting enclave and TCB. Throws as `endorse`. */
export function judgeQuote(quote: Quote, context: AppraisalContext, cache?: EndorsementCache): JudgedQuote {
  const endorsement = cache === undefined ? endorse(quote, context) : cache.endorse(quote, context)
  const qe = judgeQe(quote, endorsement)
  const tcb = judgeTcb(quote, endorsement, qe.level)
  const findings = [
    ...signatureFindings(quote, endorsement, cache?.enclaves),
    ...endorsement.findings,
    ...qe.findings,
    ...tcb.findings,
  ]
  return { endorsement, tcb: tcb.tcb, findings: distinctFindings(findings) }
}

function signatureFindings(quote: Quote, { pck }: Endorsement, enclaves: EnclaveCache | undefined): Finding[] {
  const findings: Finding[] = []
  const remedy = 'Do not trust the evidence: it was changed, or never made by a quoting enclave.'
  const refuse = (code: string, message: string): void => {
    findings.push({ severity: 'contraindicated', code, message, remedy })
  }
  if (!isIntelQuote(quote))
    refuse('qe_vendor', `the quoting enclave is of an unknown maker (${toHex(quote.qeVendorId)})`)
  if (!verifyQuoteSignature(quote, enclaves))
    refuse('quote_signature', 'the quote is not signed by its attestation key')
  if (!bindsAttestationKey(quote)) refuse('qe_binding', 'the quoting enclave does not vouch for the attestation key')
  if (pck !== undefined && !verifyQeReport(quote, pck.certificate, enclaves)) {
    refuse('qe_report_signature', 'the report of the quoting enclave is not signed by the platform’s key (PCK)')
  }
  if (isDebugEnclave(quote.qeReport))
    refuse('qe_debug', 'the quoting enclave is under debug: anybody can read its keys')
  return findings
}

function judgeQe(quote: Quote, { qeIdentity }: Endorsement): { level?: IsvSvnLevel; findings: readonly Finding[] } {
  if (qeIdentity === undefined) return { findings: [] } // a finding of the endorsement says why
  const { level, mismatch } = evaluateQe(quote.qeReport, qeIdentity)
  if (level !== undefined) return { level, findings: [] }
  const { field, expected, found } = mismatch
  const message = `the quoting enclave is not the one that Intel names: its ${field} differs`
  const remedy = 'Do not trust the quote: its key is in another enclave.'
  const code = 'qe_identity_mismatch'
  return { findings: [{ severity: 'contraindicated', code, message, expected, found, remedy }] }
}

function judgeTcb(
  { body }: Quote,
  { tcbInfo, pck }: Endorsement,
  qe: IsvSvnLevel | undefined,
): { tcb: TcbEvaluation | undefined; findings: readonly Finding[] } {
  if (tcbInfo === undefined || pck === undefined) return { tcb: undefined, findings: [] }
  const tdx =
    body.tee === 'tdx' ? { teeTcbSvn: body.report.teeTcbSvn, teeTcbSvn2: body.report.tdx15?.teeTcbSvn2 } : undefined
  const tcb = evaluateTcb({ tcbInfo, pck: pck.extension, tdx, qe })
  if ('code' in tcb) {
    const remedy = 'Update the platform; if the collateral is old, fetch it anew.'
    return { tcb: undefined, findings: [{ severity: 'contraindicated', ...tcb, remedy }] }
  }
  if (tcb.status === 'UpToDate') return { tcb, findings: [] }
  const advisories = tcb.advisoryIds.length === 0 ? '' : ` (${tcb.advisoryIds.join(', ')})`
  const finding: Finding = {
    severity: tcb.status === 'Revoked' ? 'contraindicated' : 'warning',
    code: 'tcb_status',
    message: `Intel calls the security versions of the platform ${tcb.status}${advisories}`,
    expected: 'UpToDate',
    found: tcb.status,
    remedy: REMEDIES[tcb.status] ?? 'Update firmware, microcode and TDX module of the platform.',
  }
  return { tcb, findings: [finding] }
}

const REMEDIES: Readonly<Record<string, string>> = {
  Revoked: 'Do not trust the platform.',
  SWHardeningNeeded:
    'Check that the guest has the software mitigations of the advisories, then permit the status by policy.',
  TDRelaunchAdvised: 'The platform was updated since the TD began: start the TD anew.',
  TDRelaunchAdvisedConfigurationNeeded: 'Start the TD anew, and configure the platform as the advisories say.',
}

function nonceFindings({ reportData }: TdReport, nonce: Uint8Array | undefined): Finding[] {
  if (nonce === undefined) return []
  if (nonce.length > REPORT_DATA_BYTES) {
    throw new UsageError('ERR_NONCE', `a nonce of ${nonce.length} bytes; report data has ${REPORT_DATA_BYTES}`)
  }
  const wanted = new Uint8Array(REPORT_DATA_BYTES)
  wanted.set(nonce)
  if (equalBytes(wanted, reportData)) return []
  return [
    {
      severity: 'contraindicated',
      code: 'nonce_mismatch',
      message: 'the quote is not bound to the nonce: it was made for another occasion',
      expected: toHex(wanted),
      found: toHex(reportData),
      remedy: 'Ask for fresh evidence with the nonce as report data.',
    },
  ]
}
