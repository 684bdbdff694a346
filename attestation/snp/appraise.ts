/**
 * The judgement of SEV-SNP evidence: is the report signed by a key that AMD stands behind, is that key this chip's at this
 * TCB, and does the report describe a guest that nobody can look into?
 *
 * What it measured is only told (`measurement`): whether that is wanted is the policy's question.
 */
import { nodeCrypto } from '#protocol/node/crypto'
import type { AppraisalContext } from '../evidence/context.ts'
import type { Appraisal, Finding } from '../evidence/verdict.ts'
import type { TrustVector } from '../token/trust-vector.ts'
import type { ParsedCertificate } from '../x509/certificate.ts'
import type { ParsedCrl } from '../x509/crl.ts'
import { snpClaims } from './claims.ts'
import { idBlockFindings } from './evaluate/id-block-rules.ts'
import { nonceFinding, nonceMatches, reportFindings } from './evaluate/report-rules.ts'
import { pathFindings } from './findings.ts'
import type { SnpEvidence } from './parse/evidence.ts'
import type { SnpReport } from './parse/report.ts'
import { type ProductLine, productOfCpuid } from './product.ts'
import { type EndorsementKey, findEndorsementKey } from './verify/endorsement-key.ts'
import { bindingFindings } from './verify/vek-binding.ts'
import { type VekChain, verifyVekChain } from './verify/vek-chain.ts'

/** Throws `MalformedError` ERR_SNP_ID_BLOCK for an ID block in the collateral that is none. */
export function appraiseSnp(evidence: SnpEvidence, context: AppraisalContext): Appraisal {
  const { report } = evidence
  const certificates = [...evidence.certificates, ...context.collateral.certificates]
  const crls = [...evidence.crls, ...context.collateral.crls]
  const key = findEndorsementKey(report, certificates)
  const chain = key === undefined ? undefined : chainOf(key, { certificates, crls, context })
  const product = productOf(report, key, chain)
  const genuine =
    key === undefined || chain === undefined ? [uncheckedFinding(report)] : keyFindings(report, key, chain)
  const { nonce } = context
  const fresh = nonce === undefined || nonceMatches(report, nonce, (a, b) => nodeCrypto.timingSafeEqual(a, b))
  const stated = [
    ...reportFindings(report, product),
    ...(nonce === undefined || fresh ? [] : [nonceFinding(report, nonce)]),
    ...idBlockFindings(report, context.collateral.documents),
  ]
  const extensions = key === undefined || key.extensions instanceof Error ? undefined : key.extensions
  const facts = key === undefined ? undefined : { certificate: key.certificate, extensions }
  return {
    tee: 'snp',
    claims: snpClaims(report, product, facts),
    trustworthiness: trustVector(genuine, stated),
    findings: [...genuine, ...stated],
  }
}

function chainOf(
  { certificate, kind }: EndorsementKey,
  {
    certificates,
    crls,
    context,
  }: {
    readonly certificates: readonly ParsedCertificate[]
    readonly crls: readonly ParsedCrl[]
    readonly context: AppraisalContext
  },
): VekChain {
  const { anchors, at } = context
  return verifyVekChain({ vek: certificate, kind, certificates, crls, anchors, at })
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

function uncheckedFinding({ signingKey }: SnpReport): Finding {
  const kind = signingKey === 'vlek' ? 'VLEK' : 'VCEK'
  return {
    severity: 'warning',
    code: 'unchecked_chain',
    message: `no certificate of the ${kind} is known, so the report’s signature stays unchecked`,
    expected: `the certificate of the ${kind} that signed the report`,
    found: 'none',
    remedy: `Add the certificate of the ${kind} to the collateral (--collateral).`,
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
  findings.push(...pathFindings(chain.problems))
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

/** AR4SI: the value for evidence whose cryptography fails, and for configurations and memory that cannot be trusted. */
const NOT_GENUINE = 99
const CONTRAINDICATED = 96
const AFFIRMING = 2
const NO_CLAIM = 0

/** @param genuine what was found of keys and signatures; @param stated what was found of the report's content */
function trustVector(genuine: readonly Finding[], stated: readonly Finding[]): TrustVector {
  const refused = (findings: readonly Finding[]): boolean =>
    findings.some(({ severity }) => severity === 'contraindicated')
  const identity = refused(genuine) ? NOT_GENUINE : genuine.length > 0 ? NO_CLAIM : AFFIRMING
  const configuration = refused(stated) ? CONTRAINDICATED : identity === AFFIRMING ? AFFIRMING : NO_CLAIM
  return {
    'instance-identity': identity,
    configuration,
    executables: NO_CLAIM,
    'file-system': NO_CLAIM,
    hardware: identity,
    'runtime-opaque': configuration,
    'storage-opaque': NO_CLAIM,
    'sourced-data': NO_CLAIM,
  }
}
