/**
 * Evidence of TPMs for the KBS service: whom to challenge and with what. What answers the challenge is judged by
 * `../tpm/appraise.ts`.
 */
import { randomBytes } from 'node:crypto'
import { fromBase64, toBase64, toHex } from '#protocol/encoding'
import { MalformedError, UnverifiedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import { type KbsRequest, reportDataDigest } from '#protocol/kbs-messages'
import { nodeCrypto } from '#protocol/node/crypto'
import { parseTpmEvidence } from '#protocol/tpm-messages'
import { applyPolicy } from '../appraisal/apply-policy.ts'
import type { Steps } from '../evidence/steps.ts'
import { type Appraisal as EvidenceAppraisal, type Finding, verdictOf } from '../evidence/verdict.ts'
import { parseReferenceDocument } from '../measure/reference-document.ts'
import type { TpmReferenceValues } from '../measure/reference-values.ts'
import type { StoredReference } from '../store/reference-store.ts'
import type { TrustVector } from '../token/trust-vector.ts'
import { appraiseTpmEvidence, QUOTED_PCRS, type TpmClaims } from '../tpm/appraise.ts'
import { describeSteps } from '../tpm/parse/describe-log.ts'
import { type EventLog, eventLogSteps } from '../tpm/parse/event-log.ts'
import { verifyAttestationKey } from '../tpm/verify/attestation-key.ts'
import type { VerifiedEk } from '../tpm/verify/ek-chain.ts'
import { EkChainCache } from '../tpm/verify/ek-chain-cache.ts'
import { makeCredential } from '../tpm/verify/make-credential.ts'
import { replaySteps } from '../tpm/verify/replay.ts'
import { type ParsedCertificate, parseCertificate } from '../x509/certificate.ts'
import { fingerprint } from '../x509/fingerprint.ts'
import type { AnswerInput, Appraisal, ChallengeOffer, EvidenceKind } from './evidence.ts'
import { type Explanation, explainFindings } from './explain-findings.ts'
import { inSlices } from './in-slices.ts'
import type { NamedPolicy, TenantDemands } from './tenant-demands.ts'

export interface TpmEvidenceOptions {
  /** PEM certificates of CAs whose TPMs the default tenant believes, emulated ones as well: the operator's own choice. */
  readonly roots: readonly string[]
  /** PEM certificates between those and the TPMs' own. */
  readonly intermediates: readonly string[]
  readonly now: () => Date
}

const SECRET_BYTES = 32
/** Kept of the event log in each record; firmware writes some 30 events. */
const MAX_LOG_LINES = 200
const MAX_LOG_CHARACTERS = 16_000

interface ChallengeState {
  readonly secret: Uint8Array
  /** TPMT_PUBLIC of the request. */
  readonly akPublic: Uint8Array
  readonly ekFingerprint: string
  /** Fingerprints of the CAs that vouch for it: policies that name one of them count. */
  readonly anchors: readonly string[]
  readonly emulated: boolean
}

/** Sealed into the session's cookie, which is small. */
const MAX_ANCHORS = 8

export class TpmEvidenceKind implements EvidenceKind {
  readonly tee = 'tpm'
  readonly #options: TpmEvidenceOptions
  readonly #rootFingerprints: readonly string[]
  readonly #chains = new EkChainCache()

  /** @throws MalformedError ERR_TPM_CA, ERR_CERTIFICATE or ERR_DER when a trusted certificate cannot be read */
  constructor(options: TpmEvidenceOptions) {
    this.#options = {
      ...options,
      roots: options.roots.flatMap(certificatesOf),
      intermediates: options.intermediates.flatMap(certificatesOf),
    }
    this.#rootFingerprints = this.#options.roots.map((pem) => fingerprint(parseCertificate(pem)))
  }

  async challenge({ tpm, version }: KbsRequest, demands: () => Promise<TenantDemands>): Promise<ChallengeOffer> {
    if (tpm === undefined || version !== '0.4.0') {
      throw new UnverifiedError('ERR_TPM_UNBOUND', 'the request names no endorsement key for its attestation key', {
        hint: 'The client must speak version 0.4.0 with the TPM extension of protocol/attestation-messages.md.',
      })
    }
    const [ek, ...more] = this.#endorsements(tpm.ekCertificate, await demands())
    if (ek === undefined) throw noTrustedCa()
    const ak = verifyAttestationKey(tpm.akPublic)
    const secret = new Uint8Array(randomBytes(SECRET_BYTES))
    const anchors = [...new Set([ek, ...more].map(({ anchor }) => anchor))].slice(0, MAX_ANCHORS)
    return {
      state: {
        secret: toBase64(secret),
        ak: toBase64(tpm.akPublic),
        ek: ek.fingerprint,
        anchors,
        emulated: ek.emulated === true,
      },
      tpm: {
        ...makeCredential({ ek, akName: ak.name, secret }),
        pcrSelection: { bank: 'sha256', pcrs: QUOTED_PCRS.pcrs },
      },
    }
  }

  async appraise(input: AnswerInput): Promise<Appraisal> {
    const { version, nonce, attestation } = input
    const state = readState(input)
    const trusting = this.#trusting(state, input.demands)
    const reportData = reportDataDigest(nodeCrypto, { ...attestation, version, nonce })
    const evidence = parseTpmEvidence(attestation.primaryEvidence)
    const verdict = appraiseTpmEvidence({
      evidence,
      log: await inSlices(logSteps(evidence.eventLog)),
      key: verifyAttestationKey(state.akPublic),
      secret: state.secret,
      reportData,
      initdataToml: attestation.initdataToml,
      references: tpmDocuments(input.references),
      knownCommandLines: tpmDocuments(input.otherReferences).map(({ artefacts }) => artefacts.cmdline),
    })
    const facts = { 'ek-fingerprint': state.ekFingerprint, ...factsOf(verdict.claims) }
    if (!verdict.accepted) return { ...verdict, facts }
    const judged = trusting.map((policy) => judge(policy, { state, verdict, reportData: toHex(reportData) }))
    const accepted = judged.find(({ explanation }) => explanation === undefined)
    if (accepted === undefined) {
      const [first] = judged
      if (first?.explanation === undefined) throw noTrustedCa()
      const { code, reason, hint, checks } = first.explanation
      return { accepted: false, code, reason, hint, facts, checks: [...verdict.checks, ...checks] }
    }
    // The log's description is for the tenant's records; in the token it would only grow the header it travels in.
    const { events: _, ...teeClaims } = verdict.claims
    return {
      ...verdict,
      policyId: accepted.id,
      reportData: toHex(reportData),
      teeClaims,
      facts: { ...facts, policy: accepted.id },
    }
  }

  /** One for each party that trusts the TPM's maker: the operator, and each policy that names a root of it. */
  #endorsements(certificate: Uint8Array, demands: TenantDemands): VerifiedEk[] {
    const { roots, intermediates, now } = this.#options
    const lists = [
      ...(demands.operator ? [roots] : []),
      ...demands.policies.map(({ policy }) => pemOf(policy.anchors)),
    ].filter((list) => list.length > 0)
    const found: VerifiedEk[] = []
    let refusal: unknown
    for (const list of lists) {
      try {
        found.push(
          this.#chains.verify({ certificate, roots: list, intermediates: [...intermediates, ...list], at: now() }),
        )
      } catch (error) {
        if (!(error instanceof UnverifiedError)) throw error
        refusal = error
      }
    }
    if (found.length === 0) throw refusal ?? noTrustedCa()
    return found
  }

  /** Policies that count for this TPM, as they are now. */
  #trusting({ anchors }: ChallengeState, { operator, policies }: TenantDemands): TrustingPolicy[] {
    const byOperator = operator && this.#rootFingerprints.some((root) => anchors.includes(root))
    return policies.flatMap((named) => {
      const trusts = named.policy.anchors.some((anchor) => anchors.includes(fingerprint(anchor)))
      return byOperator || trusts ? [{ ...named, byOperator }] : []
    })
  }
}

/** All of the evidence whose length its sender chooses: what the verdict asks of the log is known when it is asked. */
function* logSteps(bytes: Uint8Array): Steps<EventLog> {
  const log = yield* eventLogSteps(bytes)
  if (log.banks.includes(QUOTED_PCRS.bank)) yield* replaySteps(nodeCrypto, log, QUOTED_PCRS.bank)
  yield* describeSteps(log)
  return log
}

interface TrustingPolicy extends NamedPolicy {
  /** The operator named the TPM's CA, which includes emulated ones. */
  readonly byOperator: boolean
}

function judge(
  { id, policy, byOperator }: TrustingPolicy,
  found: { state: ChallengeState; verdict: { claims: TpmClaims; vector: TrustVector }; reportData: string },
): { readonly id: string; readonly explanation: Explanation | undefined } {
  const { state, verdict, reportData } = found
  const { events, pcrs, reset_count, restart_count, firmware_version } = verdict.claims
  const appraisal: EvidenceAppraisal = {
    tee: 'tpm',
    claims: {
      report_data: reportData,
      emulated: state.emulated,
      pcrs: { sha256: pcrs },
      ak_bound: true,
      ek_certificate: state.ekFingerprint,
      ek_trusted: true,
      reset_count,
      restart_count,
      firmware_version,
      events,
    },
    trustworthiness: verdict.vector,
    findings: state.emulated && !byOperator ? [EMULATED] : [],
  }
  const applied = applyPolicy(appraisal, policy)
  if (verdictOf(applied).verdict === 'affirming') return { id, explanation: undefined }
  return { id, explanation: explainFindings({ appraisal: applied, initdata: undefined, reference: undefined }) }
}

const EMULATED: Finding = {
  severity: 'warning',
  code: 'emulated',
  message: 'the TPM is a program: whoever runs it can make it say anything',
  expected: 'a TPM of hardware',
  found: 'the endorsement certificate of a software TPM',
  remedy: 'Permit it in the appraisal policy (emulated: true) only where the guests hold nothing worth protecting.',
}

function noTrustedCa(): UnverifiedError {
  return new UnverifiedError('ERR_TPM_NO_TRUSTED_CA', 'this verifier trusts no TPM', {
    hint:
      'Decide whose TPMs you believe and name their CA: as --trust-tpm-ca FILE of the verifier, or for one tenant under ' +
      'anchors of an appraisal policy. Software TPMs are no exception: whoever runs them can make them say anything and ' +
      'read the memory of the guest.',
  })
}

/** PCR values and the log in words, for the tenant's record. */
function factsOf(claims: TpmClaims | undefined): Record<string, string> {
  if (claims === undefined) return {}
  const pcrs = Object.entries(claims.pcrs).map(([pcr, value]) => [`pcr ${pcr}`, value])
  const log = claims.events.slice(0, MAX_LOG_LINES).join('\n').slice(0, MAX_LOG_CHARACTERS)
  return { ...Object.fromEntries(pcrs), 'event-log': log, 'reset-count': String(claims.reset_count) }
}

function tpmDocuments(stored: readonly StoredReference[]): TpmReferenceValues[] {
  return stored.map(({ document }) => parseReferenceDocument(document)).filter((each) => each.platform === 'tpm')
}

/** Policies that were read stay read, and so do their anchors. */
const pems = new WeakMap<readonly ParsedCertificate[], readonly string[]>()

function pemOf(anchors: readonly ParsedCertificate[]): readonly string[] {
  const known = pems.get(anchors) ?? anchors.map(({ x509 }) => x509.toString())
  pems.set(anchors, known)
  return known
}

/** Every certificate of a PEM file: one that was overlooked would be trust that the tenant believes to have given. */
function certificatesOf(pem: string): string[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  if (blocks.length === 0 || blocks.length !== pem.split('-----BEGIN').length - 1) {
    throw new MalformedError('ERR_TPM_CA', 'a CA file must hold PEM certificates and nothing else in PEM form')
  }
  for (const block of blocks) parseCertificate(block)
  return blocks
}

function readState({ state }: AnswerInput): ChallengeState {
  const fields = new JsonFields(state, 'session.state', 'ERR_KBS_MESSAGE')
  return {
    secret: fromBase64(fields.string('secret', 64), 'session.state.secret'),
    akPublic: fromBase64(fields.string('ak', 8192), 'session.state.ak'),
    ekFingerprint: fields.string('ek', 64),
    anchors: fields.strings('anchors', { maxItems: MAX_ANCHORS, maxChars: 64 }),
    emulated: fields.json('emulated') === true,
  }
}
