/**
 * From a file to a verdict: finds out how it is encoded and what it is of, lets the module of that TEE judge it, applies the
 * tenant's policy. Only the module that is needed is loaded.
 */
import type { JsonValue } from '#protocol/canonical-json'
import { MalformedError } from '#protocol/errors'
import { applyPolicy } from '../appraisal/apply-policy.ts'
import type { AppraisalPolicy } from '../appraisal/policy.ts'
import type { Collateral } from './collateral.ts'
import type { AppraisalContext } from './context.ts'
import { detectEvidence, type EvidenceEncoding, type EvidenceInput } from './detect.ts'
import { type EnvelopeKind, openEnvelope } from './envelope.ts'
import { type Appraisal, type EvidenceVerdict, type Tee, verdictOf } from './verdict.ts'

export interface EvidenceRequest {
  /** The file, as it is. */
  readonly evidence: Uint8Array
  /** What the caller says it is of. */
  readonly tee: Tee
  readonly collateral: Collateral
  readonly policy: AppraisalPolicy
  readonly at: Date
  readonly nonce: Uint8Array | undefined
}

/** How the file was read. */
export interface EvidenceFormat {
  readonly encoding: EvidenceEncoding
  /** "snp-report", "tdx-quote", "coco-snp", "az-snp-vtpm", … */
  readonly shape: string
  /** The message around it, absent when there is none. */
  readonly envelope?: EnvelopeKind
}

export interface JudgedEvidence extends EvidenceVerdict {
  readonly format: EvidenceFormat
}

interface Judgement {
  readonly shape: string
  readonly appraisal: Appraisal
}

/**
 * Throws `MalformedError` when the file is not evidence of this TEE (ERR_EVIDENCE, or the code of its module), `UsageError`
 * ERR_NONCE for a nonce that such evidence cannot hold. Everything else is a verdict.
 */
export async function verifyEvidence(request: EvidenceRequest): Promise<JudgedEvidence> {
  const { encoding, input: outer } = detectEvidence(request.evidence)
  const { input, envelope } = openEnvelope(outer)
  const { at, nonce, collateral, policy } = request
  const context: AppraisalContext = { at, nonce, collateral, anchors: policy.anchors }
  const { shape, appraisal } = await judge(input, request.tee, context)
  return {
    ...verdictOf(applyPolicy(appraisal, policy)),
    format: { encoding, shape, ...(envelope === undefined ? {} : { envelope }) },
  }
}

async function judge(input: EvidenceInput, tee: Tee, context: AppraisalContext): Promise<Judgement> {
  if (mayBeAzure(input)) {
    const azure = await judgeAzure(input, tee, context)
    if (azure !== undefined) return azure
  }
  switch (tee) {
    case 'snp': {
      const [{ parseSnpEvidence }, { appraiseSnp }] = await Promise.all([
        import('../snp/parse/evidence.ts'),
        import('../snp/appraise.ts'),
      ])
      const evidence = parseSnpEvidence(input.form === 'bytes' ? input.bytes : input.text)
      return { shape: input.form === 'bytes' ? 'snp-report' : 'coco-snp', appraisal: appraiseSnp(evidence, context) }
    }
    case 'tdx': {
      const [{ parseTdxEvidence }, { appraiseTdx }] = await Promise.all([
        import('../tdx/parse/evidence.ts'),
        import('../tdx/appraise.ts'),
      ])
      const evidence = parseTdxEvidence(input.form === 'bytes' ? input.bytes : input.text)
      return { shape: input.form === 'bytes' ? 'tdx-quote' : 'coco-tdx', appraisal: appraiseTdx(evidence, context) }
    }
    case 'tpm':
      return judgeTpm(input, context)
  }
}

async function judgeTpm(input: EvidenceInput, context: AppraisalContext): Promise<Judgement> {
  if (input.form === 'bytes') {
    // The only evidence of a TPM that is whole in one file of bytes; a quote needs its signature beside it.
    const [{ parseEventLog }, { appraiseEventLog }] = await Promise.all([
      import('../tpm/parse/event-log.ts'),
      import('../tpm/appraise-log.ts'),
    ])
    return { shape: 'tpm-event-log', appraisal: appraiseEventLog(parseEventLog(input.bytes)) }
  }
  const [{ parseTpmEvidence }, { appraiseTpm }] = await Promise.all([
    import('../tpm/parse/evidence.ts'),
    import('../tpm/appraise-evidence.ts'),
  ])
  const evidence = parseTpmEvidence(input.value as JsonValue)
  return { shape: evidence.form, appraisal: appraiseTpm(evidence, context) }
}

/** "HCLA" (a report of Azure's paravisor), or JSON that holds one. */
function mayBeAzure(input: EvidenceInput): boolean {
  if (input.form === 'bytes') return Buffer.from(input.bytes.subarray(0, 4)).toString('latin1') === 'HCLA'
  const { value } = input
  return typeof value === 'object' && value !== null && ('hcl_report' in value || 'report' in value)
}

async function judgeAzure(input: EvidenceInput, tee: Tee, context: AppraisalContext): Promise<Judgement | undefined> {
  const [{ isAzureEvidence, parseAzureEvidence, parseAzureReport }, { appraiseAzure, azureTee }] = await Promise.all([
    import('../azure/parse/evidence.ts'),
    import('../azure/appraise.ts'),
  ])
  if (input.form === 'json' && !isAzureEvidence(input.value as JsonValue)) return undefined
  const evidence = input.form === 'json' ? parseAzureEvidence(input.value as JsonValue) : parseAzureReport(input.bytes)
  const hardware = azureTee(evidence)
  if (tee !== 'tpm' && tee !== hardware) {
    throw new MalformedError('ERR_EVIDENCE', `evidence: of a machine with ${hardware}, not ${tee}`, {
      hint: `Use --tee ${hardware}, or --tee tpm for the virtual TPM that the hardware vouches for.`,
    })
  }
  return { shape: evidence.form, appraisal: appraiseAzure(evidence, context, tee) }
}
