/**
 * Evidence of SEV-SNP, TDX and Azure's machines for the KBS service. Nothing is asked for but a report over the challenge:
 * its report data must be SHA-384 of nonce and key (protocol section 4). It must then satisfy one of the tenant's appraisal
 * policies as a whole, and what booted must be a document of reference values or listed by that policy.
 */
import { toHex } from '#protocol/encoding'
import { reportDataDigest } from '#protocol/kbs-messages'
import { nodeCrypto } from '#protocol/node/crypto'
import { applyPolicy } from '../appraisal/apply-policy.ts'
import { measurementFindings } from '../appraisal/measurement-findings.ts'
import type { CollateralSource, FetchedCollateral } from '../collateral/source.ts'
import { type Collateral, NO_COLLATERAL } from '../evidence/collateral.ts'
import type { Steps } from '../evidence/steps.ts'
import { type Claims, type Appraisal as EvidenceAppraisal, type Finding, verdictOf } from '../evidence/verdict.ts'
import { parseReferenceDocument, type ReferenceDocument } from '../measure/reference-document.ts'
import type { ClaimCheck } from '../store/attestation-log.ts'
import type { StoredReference } from '../store/reference-store.ts'
import { tierOf } from '../token/trust-vector.ts'
import type { AnswerInput, Appraisal, ChallengeOffer, EvidenceKind } from './evidence.ts'
import { type Explanation, explainFindings, hardwareFacts, tokenClaims } from './explain-findings.ts'
import type { HardwarePlatform, ReadEvidence } from './hardware-platforms.ts'
import { inSlices } from './in-slices.ts'
import { checkInitdata } from './initdata-check.ts'
import { matchReferences, type ReferenceResult } from './reference-match.ts'
import type { NamedPolicy } from './tenant-demands.ts'

export interface HardwareKindOptions {
  readonly platform: HardwarePlatform
  /** One of the platform's names. */
  readonly tee: string
  readonly collateral: CollateralSource
  readonly now: () => Date
}

/** AR4SI section 2.3.3: only approved executables were loaded at boot. */
const APPROVED_BOOT = 3

interface Judged {
  readonly policyId: string
  readonly appraisal: EvidenceAppraisal
  /** Whatever the policy says of it. */
  readonly genuine: boolean
  readonly reference: ReferenceResult | undefined
  readonly explanation: Explanation | undefined
}

interface Occasion {
  readonly evidence: ReadEvidence
  readonly digest: Uint8Array
  readonly collateral: Collateral
  readonly input: AnswerInput
}

export class HardwareEvidenceKind implements EvidenceKind {
  readonly tee: string
  readonly #options: HardwareKindOptions

  constructor(options: HardwareKindOptions) {
    this.tee = options.tee
    this.#options = options
  }

  challenge(): ChallengeOffer {
    return { state: {} }
  }

  async appraise(input: AnswerInput): Promise<Appraisal> {
    const { version, nonce, attestation, demands } = input
    const digest = reportDataDigest(nodeCrypto, { ...attestation, version, nonce })
    const evidence = await inSlices(this.#options.platform.read(attestation.primaryEvidence))
    const { collateral, proven } = await this.#collateral(evidence, digest, input)
    const judged = await inSlices(this.#judgements({ evidence, digest, collateral, input }))
    if (judged.some(({ genuine }) => genuine)) proven()
    const accepted = judged.find(({ explanation }) => explanation === undefined)
    const [closest] = judged.toSorted((a, b) => failures(a) - failures(b))
    const best = accepted ?? closest
    if (best === undefined) throw new TypeError('a tenant has at least one policy')
    const { claims, trustworthiness } = best.appraisal
    const initdata = evidence.initdata(claims)
    const common = {
      checks: [
        ...(best.explanation?.checks ?? []),
        ...(best.reference?.checks ?? []),
        ...initdataChecks(evidence, best, input),
      ],
      facts: hardwareFacts(claims, best.policyId),
    }
    if (best.explanation !== undefined) {
      const { code, reason, hint } = best.explanation
      const among =
        demands.policies.length > 1 ? ` (closest of ${demands.policies.length} policies: ${best.policyId})` : ''
      return { ...common, accepted: false, code, reason: `${reason}${among}`, hint }
    }
    return {
      ...common,
      accepted: true,
      vector: trustworthiness,
      referenceId: best.reference?.matched === true ? best.reference.id : undefined,
      policyId: best.policyId,
      reportData: toHex(digest),
      initdataDigest: initdata.found ?? '',
      teeClaims: tokenClaims(claims),
      images: [],
    }
  }

  /**
   * Makers are asked about evidence that nothing disproves. That is not to say that it is genuine: a report whose chip nobody
   * knows yet could be of anybody's making, so a tenant's questions of that kind are counted until one is proven.
   */
  async #collateral(
    evidence: ReadEvidence,
    nonce: Uint8Array,
    { demands, tenant }: AnswerInput,
  ): Promise<FetchedCollateral> {
    const { collateral: source, now } = this.#options
    const anchors = demands.policies.flatMap(({ policy }) => policy.anchors)
    const first = evidence.appraise({ at: now(), nonce, collateral: NO_COLLATERAL, anchors })
    const wanted = { tenant, keyKnown: isKeyKnown(first) }
    const known = await source.known(first.claims, wanted)
    const unasked = { collateral: known.collateral, proven: () => {} }
    if (known.complete) return unasked
    const disproven = first.findings.some(
      ({ severity, code }) => severity === 'contraindicated' && !NO_FORGERY.has(code),
    )
    return disproven ? unasked : await source.fetched(first.claims, wanted)
  }

  /** By each policy. What was measured is the same for all of them, and so is what it is compared with. */
  *#judgements(occasion: Occasion): Steps<Judged[]> {
    const judged: Judged[] = []
    let compared: { readonly result: ReferenceResult | undefined } | undefined
    const referenceOf = (claims: Claims): ReferenceResult | undefined => {
      compared ??= { result: this.#reference(occasion.evidence, claims, occasion.input) }
      return compared.result
    }
    for (const policy of occasion.input.demands.policies) {
      judged.push(this.#judge(policy, occasion, referenceOf))
      yield
    }
    return judged
  }

  #judge(
    { id, policy }: NamedPolicy,
    { evidence, digest, collateral, input }: Occasion,
    referenceOf: (claims: Claims) => ReferenceResult | undefined,
  ): Judged {
    const context = { at: this.#options.now(), nonce: digest, collateral, anchors: policy.anchors }
    const found = evidence.appraise(context)
    const listed = measurementFindings(found, policy).approvedBoot
    const reference = referenceOf(found.claims)
    const booted = reference?.matched === true || (listed && (reference !== undefined || policy.pcrs.size > 0))
    const appraisal = applyPolicy(booted ? approved(found) : found, policy)
    const problem = booted ? undefined : (reference ?? NOTHING_LISTED)
    const initdata = checkInitdata(evidence.initdata(found.claims), input.initdata)
    const affirmed = verdictOf(appraisal).verdict === 'affirming' && initdata?.ok !== false && problem === undefined
    return {
      policyId: id,
      appraisal,
      genuine: isKeyKnown(found) && tierOf(found.trustworthiness['instance-identity']) !== 'contraindicated',
      reference: booted && reference?.matched === false ? undefined : reference,
      explanation: affirmed ? undefined : explainFindings({ appraisal, initdata, reference: problem }),
    }
  }

  #reference(evidence: ReadEvidence, claims: Claims, input: AnswerInput): ReferenceResult | undefined {
    const measured = evidence.measured(claims)
    if (measured === undefined) return undefined
    return matchReferences({
      measured,
      current: documentsOf(input.references),
      others: documentsOf(input.otherReferences),
    })
  }
}

/** What a policy may permit, or what is about the guest and not about who speaks. */
const NO_FORGERY: ReadonlySet<string> = new Set(['debug', 'vmpl', 'policy_not_enforced'])

const NOTHING_LISTED: ReferenceResult = {
  matched: false,
  code: 'ERR_NO_REFERENCE_VALUES',
  reason: 'the policy lists no PCRs, so no boot of this machine is expected',
  hint: 'List measurements.pcrs in the appraisal policy: they say what such a machine booted.',
  checks: [],
}

/** Whether the certificates of the key that signed it are there. */
function isKeyKnown({ findings }: EvidenceAppraisal): boolean {
  return !findings.some(({ code }) => code === 'unchecked_chain')
}

function approved(appraisal: EvidenceAppraisal): EvidenceAppraisal {
  const { trustworthiness } = appraisal
  if (trustworthiness.executables !== 0) return appraisal
  return { ...appraisal, trustworthiness: { ...trustworthiness, executables: APPROVED_BOOT } }
}

function failures({ appraisal, reference }: Judged): number {
  const weight = ({ severity }: Finding): number => (severity === 'contraindicated' ? 2 : 1)
  return appraisal.findings.reduce((sum, finding) => sum + weight(finding), reference?.matched === false ? 2 : 0)
}

function initdataChecks(evidence: ReadEvidence, { appraisal }: Judged, input: AnswerInput): ClaimCheck[] {
  const check = checkInitdata(evidence.initdata(appraisal.claims), input.initdata)
  return check === undefined ? [] : [check]
}

function documentsOf(stored: readonly StoredReference[]): readonly ReferenceDocument[] {
  return stored.map(({ document }) => parseReferenceDocument(document))
}
