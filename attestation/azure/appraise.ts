/**
 * The verdict about evidence of Azure's confidential machines, both halves: the virtual TPM's quote is signed by the key that the
 * runtime claims name, the hardware's report carries the hash of these claims, and the report itself is judged as anywhere else.
 * So the TPM's word is worth as much as the hardware's; nobody else has to vouch for its key.
 */
import { toHex } from '#protocol/encoding'
import { nodeCrypto } from '#protocol/node/crypto'
import type { AppraisalContext } from '../evidence/context.ts'
import type { Appraisal, Claims, ClaimValue, Finding, Tee } from '../evidence/verdict.ts'
import { appraiseSnp } from '../snp/appraise.ts'
import { appraiseTdx } from '../tdx/appraise.ts'
import { keyClaims } from '../tpm/evaluate/key-claims.ts'
import { appraiseQuote, quoteClaims, sameNonce } from '../tpm/evaluate/quote.ts'
import type { AzureEvidence } from './parse/evidence.ts'
import { boundReportData } from './verify/binding.ts'

const REPORT_DATA_BYTES = 64
/** The paravisor's own level: a report of a higher one was asked for by the guest that it is to watch over. */
const PARAVISOR_VMPL = 0
const NOT_GENUINE = 99

/** The hardware that the evidence is of. */
export function azureTee(evidence: AzureEvidence): 'snp' | 'tdx' {
  return evidence.hcl.kind
}

/**
 * Throws as `appraiseSnp` and `appraiseTdx`.
 * @param tee as which the caller wants it judged: the hardware's, or `tpm`, which then needs a quote
 */
export function appraiseAzure(evidence: AzureEvidence, context: AppraisalContext, tee: Tee): Appraisal {
  const hardware = appraiseHardware(evidence, context)
  const tpm = appraiseTpmHalf(evidence, context.nonce, tee)
  const own = [...bindingFindings(evidence), ...vmplFindings(evidence), ...tpm.findings]
  const refused = own.some(({ severity }) => severity === 'contraindicated')
  const { trustworthiness } = hardware
  return {
    tee,
    claims: { ...hardware.claims, ...runtimeClaims(evidence), ...tpm.claims },
    trustworthiness: refused ? { ...trustworthiness, 'instance-identity': NOT_GENUINE } : trustworthiness,
    findings: [...hardware.findings, ...own],
  }
}

/** Its report data is no nonce: it binds the runtime claims. */
function appraiseHardware(evidence: AzureEvidence, context: AppraisalContext): Appraisal {
  const unasked = { ...context, nonce: undefined }
  return 'snp' in evidence ? appraiseSnp(evidence.snp, unasked) : appraiseTdx(evidence.tdx, unasked)
}

function appraiseTpmHalf(
  evidence: AzureEvidence,
  nonce: Uint8Array | undefined,
  tee: Tee,
): { claims: Claims; findings: readonly Finding[] } {
  const { hcl, quote } = evidence
  if (quote === undefined) return { claims: {}, findings: [...unquoted(tee), ...reportNonceFindings(evidence, nonce)] }
  const key = hcl.claims.attestationKey
  const { pcrs, findings } = appraiseQuote(quote, { key, nonce })
  const { report_data, pcrs: values, ...stated } = quoteClaims([quote], pcrs)
  return {
    claims: {
      report_data: report_data ?? '',
      pcrs: values ?? {},
      tpm: { ...stated, ...keyClaims(key), ak_bound: true },
    },
    findings,
  }
}

function hardwareReportData(evidence: AzureEvidence): Uint8Array {
  if ('snp' in evidence) return evidence.snp.report.reportData
  const { body } = evidence.tdx.quote
  return body.tee === 'tdx' ? body.report.reportData : new Uint8Array()
}

function bindingFindings(evidence: AzureEvidence): Finding[] {
  const expected = boundReportData(nodeCrypto, evidence.hcl)
  const found = hardwareReportData(evidence)
  if (nodeCrypto.timingSafeEqual(expected, found)) return []
  return [
    {
      severity: 'contraindicated',
      code: 'runtime_claims_mismatch',
      message: 'the hardware’s report does not vouch for the runtime claims, and so not for the TPM’s key',
      expected: toHex(expected),
      found: toHex(found),
      remedy: 'Parts of different machines or boots were put together, or the claims were changed. Attest again.',
    },
  ]
}

function vmplFindings(evidence: AzureEvidence): Finding[] {
  if (!('snp' in evidence) || evidence.snp.report.vmpl === PARAVISOR_VMPL) return []
  return [
    {
      severity: 'contraindicated',
      code: 'vmpl',
      message: 'the report was not asked for by the paravisor',
      expected: String(PARAVISOR_VMPL),
      found: String(evidence.snp.report.vmpl),
      remedy: 'Do not believe the runtime claims: the guest could have made them up.',
    },
  ]
}

function unquoted(tee: Tee): Finding[] {
  if (tee !== 'tpm') return []
  return [
    {
      severity: 'warning',
      code: 'no_quote',
      message: 'the paravisor’s report came without a quote of its TPM',
      remedy: 'Send the quote together with the report.',
    },
  ]
}

/** A bare report holds what the guest wrote for the paravisor to include; or somebody knows the claims, and so their hash. */
function reportNonceFindings(evidence: AzureEvidence, nonce: Uint8Array | undefined): Finding[] {
  const { userData } = evidence.hcl.claims
  if (nonce === undefined) return []
  const carriers = [hardwareReportData(evidence), ...(userData === undefined ? [] : [padded(userData)])]
  if (carriers.some((carrier) => sameNonce(carrier, nonce))) return []
  return [
    {
      severity: 'contraindicated',
      code: 'nonce_mismatch',
      message: 'the user data of the runtime claims are not the nonce',
      expected: toHex(nonce),
      found: userData === undefined ? 'none' : toHex(userData),
      remedy: 'Write the nonce into NV index 0x01400002 before the report is read, or send a quote.',
    },
  ]
}

function padded(data: Uint8Array): Uint8Array {
  if (data.length >= REPORT_DATA_BYTES) return data
  const whole = new Uint8Array(REPORT_DATA_BYTES)
  whole.set(data)
  return whole
}

function runtimeClaims(evidence: AzureEvidence): Claims {
  const { claims } = evidence.hcl
  return {
    evidence_form: evidence.form,
    hardware_report_data: toHex(hardwareReportData(evidence)),
    vm_configuration: claims.vmConfiguration as ClaimValue,
    user_data: claims.userData === undefined ? null : toHex(claims.userData),
  }
}
