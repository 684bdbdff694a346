/**
 * The verdict about a TPM's evidence: genuine, fresh, complete, and of a boot that the tenant expects. Every comparison is
 * recorded with what was expected and found, so that a refusal can be explained claim by claim.
 *
 * The EK chain was verified before the challenge was made; what the verdict is worth depends on who runs that CA.
 */
import { createHash } from 'node:crypto'
import { equalBytes, toHex } from '#protocol/encoding'
import { UnverifiedError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import { type AdmittedImage, replayAdmittedImages, type TpmEvidence } from '#protocol/tpm-messages'
import type { TpmReferenceValues } from '../measure/reference-values.ts'
import { explainPcrMismatch } from '../measure/tpm/explain-pcr-mismatch.ts'
import { type TrustVector, tpmTrustVector } from '../token/trust-vector.ts'
import { credentialProof } from './credential-proof.ts'
import { describeLog } from './parse/describe-log.ts'
import { type EventLog, parseEventLog } from './parse/event-log.ts'
import type { BankSelection } from './parse/pcr-selection.ts'
import { type AttestationKey, checkSameKey } from './verify/attestation-key.ts'
import { type VerifiedQuote, verifyQuote } from './verify/quote.ts'
import { extendPcr, replayMismatches } from './verify/replay.ts'

/** What every challenge asks to be quoted. */
export const QUOTED_PCRS: BankSelection = { bank: 'sha256', pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15] }

/** PCRs that the firmware's log accounts for completely. 8 and 15 are extended by the guest itself. */
const LOGGED_PCRS: readonly number[] = [0, 1, 2, 3, 4, 5, 6, 7, 9]
const INITDATA_PCR = 8
const IMAGES_PCR = 15

/** One comparison; the shape in which the verifier keeps them. */
export interface AppraisalCheck {
  readonly claim: string
  readonly expected: string
  readonly found: string
  readonly ok: boolean
  readonly remedy?: string
}

export interface TpmAppraisalInput {
  readonly evidence: TpmEvidence
  /** The evidence's event log, for a caller that read it before. */
  readonly log?: EventLog
  /** Of the Request. */
  readonly key: AttestationKey
  /** What the credential held. */
  readonly secret: Uint8Array
  /** What the evidence must be bound to, 48 bytes. */
  readonly reportData: Uint8Array
  readonly initdataToml: string | undefined
  readonly references: readonly TpmReferenceValues[]
  /** Kernel command lines of guests that do not count now: tried when one has to be explained. */
  readonly knownCommandLines?: readonly string[]
}

export interface TpmClaims {
  readonly bank: 'sha256'
  /** Hex, by PCR number. */
  readonly pcrs: Readonly<Record<string, string>>
  /** One line per event of the firmware's log. */
  readonly events: readonly string[]
  readonly reset_count: number
  readonly restart_count: number
  /** Hex. */
  readonly firmware_version: string
}

export type TpmAppraisal =
  | {
      readonly accepted: true
      readonly checks: readonly AppraisalCheck[]
      readonly vector: TrustVector
      readonly referenceId: string
      /** SHA-256 of the initdata, hex. */
      readonly initdataDigest: string
      readonly claims: TpmClaims
      readonly images: readonly AdmittedImage[]
    }
  | {
      readonly accepted: false
      readonly checks: readonly AppraisalCheck[]
      readonly code: string
      readonly reason: string
      readonly hint: string | undefined
      /** Present when the quote was genuine. */
      readonly claims?: TpmClaims
    }

/** Throws `MalformedError` where the evidence cannot be read (event log included); a "no" is returned. */
export function appraiseTpmEvidence(input: TpmAppraisalInput): TpmAppraisal {
  const { evidence } = input
  const log = input.log ?? parseEventLog(evidence.eventLog)
  const checks: AppraisalCheck[] = []
  let quote: VerifiedQuote
  try {
    quote = verifyGenuine(input, checks)
  } catch (error) {
    if (!(error instanceof UnverifiedError)) throw error
    return { accepted: false, checks, code: error.code, reason: error.message, hint: error.hint }
  }
  const claims = claimsOf(quote, log)
  const initdataDigest = sha256(input.initdataToml ?? '')
  checks.push(
    ...replayChecks(quote, log),
    initdataCheck(quote, input.initdataToml),
    imagesCheck(quote, evidence.images),
  )
  const refused = firstRefusal(checks)
  if (refused !== undefined) return { accepted: false, checks, claims, ...refused }

  const match = input.references.find((reference) => differingPcrs(reference, quote).length === 0)
  if (match === undefined) {
    return { accepted: false, checks, claims, ...refuseReferences(input, { quote, log, checks }) }
  }
  for (const [pcr, value] of Object.entries(match.pcrs.sha256)) {
    checks.push({ claim: `pcr ${pcr} (${match.id})`, expected: value, found: value, ok: true })
  }
  return {
    accepted: true,
    checks,
    vector: tpmTrustVector(evidence.images.length > 0),
    referenceId: match.id,
    initdataDigest: toHex(initdataDigest),
    claims,
    images: evidence.images,
  }
}

/** The steps that need no opinion: same key, secret recovered, quote genuine. Throws `UnverifiedError` at the first "no". */
function verifyGenuine(input: TpmAppraisalInput, checks: AppraisalCheck[]): VerifiedQuote {
  const { evidence, key } = input
  const step = <Result>(claim: string, expected: string, verify: () => Result): Result => {
    try {
      const result = verify()
      checks.push({ claim, expected, found: expected, ok: true })
      return result
    } catch (error) {
      if (error instanceof UnverifiedError) {
        checks.push({ claim, expected, found: error.message, ok: false, ...remedyOf(error.hint) })
      }
      throw error
    }
  }
  step('attestation key', 'the key of the request', () => checkSameKey(key, evidence.akPublic))
  step('credential secret', 'recovered by the TPM of the EK certificate', () => {
    const proof = credentialProof(nodeCrypto, input.secret, input.reportData)
    if (nodeCrypto.timingSafeEqual(proof, evidence.credentialSecret)) return
    throw new UnverifiedError('ERR_CREDENTIAL', 'the answer does not prove that this TPM opened the credential', {
      hint: 'The answer belongs to another challenge, or the attestation key is not in the TPM of the EK certificate.',
    })
  })
  return step('quote', 'signed by the attestation key for this challenge and these PCRs', () =>
    verifyQuote({
      key,
      message: evidence.quote.message,
      signature: evidence.quote.signature,
      qualifyingData: input.reportData,
      selection: QUOTED_PCRS,
      pcrs: evidence.quote.pcrs,
    }),
  )
}

function replayChecks(quote: VerifiedQuote, log: EventLog): AppraisalCheck[] {
  const mismatches = replayMismatches(nodeCrypto, log, { bank: 'sha256', pcrs: quote.pcrs, judged: LOGGED_PCRS })
  if (mismatches.length === 0) {
    const all = `replays to PCRs ${LOGGED_PCRS.join(', ')}`
    return [{ claim: 'event log', expected: all, found: all, ok: true }]
  }
  return mismatches.map(({ pcr, replayed, quoted }) => ({
    claim: `event log, pcr ${pcr}`,
    expected: `replays to the quoted ${toHex(quoted)}`,
    found: toHex(replayed),
    ok: false,
    remedy: 'The log was changed or is of another boot. Attest again; if it stays so, do not trust the machine.',
  }))
}

function initdataCheck(quote: VerifiedQuote, toml: string | undefined): AppraisalCheck {
  const found = toHex(quote.pcrs.get(INITDATA_PCR) ?? new Uint8Array())
  const claim = 'initdata, pcr 8'
  const remedy =
    'The host exchanged the initdata, or did not hand it to the guest. Start the guest with the registered one.'
  if (toml === undefined) return { claim, expected: 'initdata in the answer', found: 'none', ok: false, remedy }
  const value = extendPcr(nodeCrypto, 'sha256', { pcr: new Uint8Array(32), digest: sha256(toml) })
  const expected = toHex(value)
  return expected === found ? { claim, expected, found, ok: true } : { claim, expected, found, ok: false, remedy }
}

function imagesCheck(quote: VerifiedQuote, images: readonly AdmittedImage[]): AppraisalCheck {
  const expected = toHex(replayAdmittedImages(nodeCrypto, images))
  const found = toHex(quote.pcrs.get(IMAGES_PCR) ?? new Uint8Array())
  const claim = `${images.length} admitted images, pcr 15`
  if (expected === found) return { claim, expected, found, ok: true }
  const remedy = 'The list of admitted images is not what the guest measured. Start the guest anew.'
  return { claim, expected, found, ok: false, remedy }
}

/** Codes of the checks that this module makes itself. */
function firstRefusal(
  checks: readonly AppraisalCheck[],
): { code: string; reason: string; hint: string | undefined } | undefined {
  const check = checks.find(({ ok }) => !ok)
  if (check === undefined) return undefined
  const reason = `${check.claim}: expected ${check.expected}, found ${check.found}`
  if (check.claim.startsWith('event log')) return { code: 'ERR_EVENT_LOG_MISMATCH', reason, hint: check.remedy }
  if (check.claim.startsWith('initdata')) return { code: 'ERR_INITDATA_MISMATCH', reason, hint: check.remedy }
  return { code: 'ERR_IMAGES_MISMATCH', reason, hint: check.remedy }
}

function differingPcrs(reference: TpmReferenceValues, quote: VerifiedQuote): number[] {
  return Object.entries(reference.pcrs.sha256)
    .filter(([pcr, value]) => !equalBytes(quote.pcrs.get(Number(pcr)) ?? new Uint8Array(), Buffer.from(value, 'hex')))
    .map(([pcr]) => Number(pcr))
}

/** No document matches as a whole: the one that comes closest is the one to explain against. */
function refuseReferences(
  { references, knownCommandLines = [] }: TpmAppraisalInput,
  context: { readonly quote: VerifiedQuote; readonly log: EventLog; readonly checks: AppraisalCheck[] },
): { code: string; reason: string; hint: string | undefined } {
  const [closest] = references.toSorted(
    (a, b) => differingPcrs(a, context.quote).length - differingPcrs(b, context.quote).length,
  )
  if (closest === undefined) {
    return {
      code: 'ERR_NO_REFERENCE_VALUES',
      reason: 'no reference values are registered, so no boot is expected',
      hint: 'Predict them with "caisson measure tpm" and register them with "caisson verifier reference-value".',
    }
  }
  const explanations = differingPcrs(closest, context.quote).map((pcr) =>
    explainPcrMismatch({
      pcr,
      predicted: closest.events,
      log: context.log,
      found: toHex(context.quote.pcrs.get(pcr) ?? new Uint8Array()),
      commandLine: {
        predicted: closest.artefacts.cmdline,
        known: [...references.map(({ artefacts }) => artefacts.cmdline), ...knownCommandLines],
      },
    }),
  )
  for (const { pcr, expected, found, remedy } of explanations) {
    context.checks.push({ claim: `pcr ${pcr} (${closest.id})`, expected, found, ok: false, remedy })
  }
  return {
    code: 'ERR_PCR_MISMATCH',
    reason: `compared with ${closest.id}: ${explanations.map(({ message }) => message).join('; ')}`,
    hint: explanations[0]?.remedy,
  }
}

function claimsOf(quote: VerifiedQuote, log: EventLog): TpmClaims {
  return {
    bank: 'sha256',
    pcrs: Object.fromEntries([...quote.pcrs].map(([pcr, value]) => [String(pcr), toHex(value)])),
    events: describeLog(log),
    reset_count: quote.attest.resetCount,
    restart_count: quote.attest.restartCount,
    firmware_version: quote.attest.firmwareVersion.toString(16),
  }
}

function remedyOf(hint: string | undefined): { remedy?: string } {
  return hint === undefined ? {} : { remedy: hint }
}

function sha256(text: string): Uint8Array {
  return new Uint8Array(createHash('sha256').update(text).digest())
}
