/**
 * The judgement of SEV-SNP evidence: is the report signed by a key that AMD stands behind, is that key this chip's at this
 * TCB, and does the report describe a guest that nobody can look into?
 *
 * What it measured is only told (`measurement`): whether that is wanted is the policy's question.
 */
import type { AppraisalContext } from '../evidence/context.ts'
import type { Appraisal, Finding } from '../evidence/verdict.ts'
import { snpClaims } from './claims.ts'
import { idBlockFindings } from './evaluate/id-block-rules.ts'
import { nonceFindings, reportFindings } from './evaluate/report-rules.ts'
import { pathFindings } from './findings.ts'
import { crlAddress, vcekAddress } from './key-distribution.ts'
import type { SnpEvidence } from './parse/evidence.ts'
import type { SnpReport } from './parse/report.ts'
import { type ProductLine, productOfCpuid } from './product.ts'
import { snpTrustVector } from './trust-vector.ts'
import { type EndorsementKey, findEndorsementKey } from './verify/endorsement-key.ts'
import { bindingFindings } from './verify/vek-binding.ts'
import { type VekChain, verifyVekChain } from './verify/vek-chain.ts'
import type { VekChainCache } from './verify/vek-chain-cache.ts'

/**
 * Synchronous and short: one to two milliseconds with everything verified anew, hardly more than the report's own signature
 * with a cache.
 *
 * Throws `UsageError` ERR_NONCE for a nonce that no report data can hold, and `MalformedError` ERR_SNP_ID_BLOCK or ERR_BASE64
 * for an ID block in the collateral that is none. Every "no" is a finding.
 *
 * @param cache what was verified before; the verdict is the same without it
 */
export function appraiseSnp(evidence: SnpEvidence, context: AppraisalContext, cache?: VekChainCache): Appraisal {
  const { report } = evidence
  const { collateral, anchors, at } = context
  // What the caller brings comes first: the evidence could hold another certificate for the same key.
  const certificates = [...collateral.certificates, ...evidence.certificates]
  const crls = [...collateral.crls, ...evidence.crls]
  const key = findEndorsementKey(report, certificates, at)
  const verify = cache === undefined ? verifyVekChain : cache.verify.bind(cache)
  const chain =
    key === undefined ? undefined : verify({ vek: key.certificate, kind: key.kind, certificates, crls, anchors, at })
  const product = productOf(report, key, chain)
  const findings = [
    ...(key === undefined || chain === undefined
      ? [uncheckedFinding(report, product)]
      : keyFindings(report, key, chain)),
    ...reportFindings(report, product),
    ...nonceFindings(report, context.nonce),
    ...idBlockFindings(report, collateral.documents),
  ]
  const extensions = key === undefined || key.extensions instanceof Error ? undefined : key.extensions
  const facts = key === undefined ? undefined : { certificate: key.certificate, extensions }
  return {
    tee: 'snp',
    claims: snpClaims(report, product, facts),
    trustworthiness: snpTrustVector(findings),
    findings,
  }
}

/** Reports of version 2 do not name their processor: its certificate does. */
function productOf(
  { cpuid }: SnpReport,
  key: EndorsementKey | undefined,
  chain: VekChain | undefined,
): ProductLine | undefined {
  const certified = key === undefined || key.extensions instanceof Error ? undefined : key.extensions.product
  return (cpuid === undefined ? undefined : productOfCpuid(cpuid)) ?? certified ?? chain?.product
}

function uncheckedFinding(report: SnpReport, product: ProductLine | undefined): Finding {
  const kind = report.signingKey === 'vlek' ? 'VLEK' : 'VCEK'
  const address = product === undefined ? undefined : vcekAddress(report, product)
  return {
    severity: 'warning',
    code: 'unchecked_chain',
    message: `no certificate of the ${kind} is known, so the report’s signature stays unchecked`,
    expected: `the certificate of the ${kind} that signed the report`,
    found: 'none',
    remedy:
      address === undefined
        ? `Add the certificate of the ${kind} to the collateral (--collateral).`
        : `Add the certificate from ${address} to the collateral (--collateral).`,
  }
}

/** Signature, chain, and what the certificate says of the key. */
function keyFindings(report: SnpReport, key: EndorsementKey, chain: VekChain): Finding[] {
  const findings: Finding[] = []
  if (!key.signed) {
    findings.push({
      severity: 'contraindicated',
      code: 'signature_invalid',
      message: 'the report was not signed by the key of the certificate',
      remedy: 'The report was changed, or the certificate is of another chip or TCB: ask for both anew.',
    })
  }
  const product = chain.product ?? (key.extensions instanceof Error ? undefined : key.extensions.product)
  findings.push(...pathFindings(chain.problems, product && crlAddress(key.kind, product)))
  if (key.extensions instanceof Error) {
    findings.push({
      severity: 'contraindicated',
      code: 'vek_certificate',
      message: key.extensions.message,
      remedy: 'Fetch the certificate from AMD’s key distribution service.',
    })
  } else {
    findings.push(...bindingFindings(report, { kind: key.kind, extensions: key.extensions }, chain.product))
  }
  return findings
}
