/**
 * Evidence of TPMs for the KBS service: whom to challenge, with what, and which answers are genuine. What a genuine quote
 * says is judged by `../tpm/appraise.ts` against the registered reference values.
 */
import { randomBytes } from 'node:crypto'
import { fromBase64, toBase64, toHex } from '#protocol/encoding'
import { MalformedError, UnverifiedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import { type KbsRequest, reportDataDigest } from '#protocol/kbs-messages'
import { nodeCrypto } from '#protocol/node/crypto'
import { parseTpmEvidence, type TpmEvidence } from '#protocol/tpm-messages'
import { credentialProof } from '../tpm/credential-proof.ts'
import { checkSameKey, verifyAttestationKey } from '../tpm/verify/attestation-key.ts'
import { parseCertificate } from '../tpm/verify/certificate.ts'
import { verifyEkChain } from '../tpm/verify/ek-chain.ts'
import { makeCredential } from '../tpm/verify/make-credential.ts'
import { type VerifiedQuote, verifyQuote } from '../tpm/verify/quote.ts'
import type { ClaimCheck } from './attestation-log.ts'
import type { AnswerInput, Appraisal, ChallengeOffer, EvidenceKind } from './evidence.ts'

export interface TpmEvidenceOptions {
  /** PEM certificates of CAs whose TPMs are believed. */
  readonly roots: readonly string[]
  /** PEM certificates between those and the TPMs' own. */
  readonly intermediates: readonly string[]
  readonly now: () => Date
}

/** SHA-256 bank: firmware and boot (0 to 7), initdata (8), command line (9), admitted images (15). */
const SELECTION = { bank: 'sha256', pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15] } as const
const SECRET_BYTES = 32

interface ChallengeState {
  readonly secret: Uint8Array
  /** TPMT_PUBLIC of the request. */
  readonly akPublic: Uint8Array
  readonly ekFingerprint: string
}

export class TpmEvidenceKind implements EvidenceKind {
  readonly tee = 'tpm'
  readonly #options: TpmEvidenceOptions

  /** @throws MalformedError ERR_TPM_CA, ERR_CERTIFICATE or ERR_DER when a trusted certificate cannot be read */
  constructor(options: TpmEvidenceOptions) {
    this.#options = {
      ...options,
      roots: options.roots.flatMap(certificatesOf),
      intermediates: options.intermediates.flatMap(certificatesOf),
    }
  }

  challenge({ tpm, version }: KbsRequest): ChallengeOffer {
    if (tpm === undefined || version !== '0.4.0') {
      throw new UnverifiedError('ERR_TPM_UNBOUND', 'the request names no endorsement key for its attestation key', {
        hint: 'The client must speak version 0.4.0 with the TPM extension of protocol/attestation-messages.md.',
      })
    }
    const { roots, intermediates, now } = this.#options
    if (roots.length === 0) {
      throw new UnverifiedError('ERR_TPM_NO_TRUSTED_CA', 'this verifier trusts no TPM', {
        hint:
          'Decide whose TPMs you believe and start the verifier with --trust-tpm-ca FILE. Software TPMs are no exception: ' +
          'whoever runs them can make them say anything and read the memory of the guest.',
      })
    }
    const ek = verifyEkChain({ certificate: tpm.ekCertificate, roots, intermediates, at: now() })
    const ak = verifyAttestationKey(tpm.akPublic)
    const secret = new Uint8Array(randomBytes(SECRET_BYTES))
    return {
      state: { secret: toBase64(secret), ak: toBase64(tpm.akPublic), ek: ek.fingerprint },
      tpm: { ...makeCredential({ ek, akName: ak.name, secret }), pcrSelection: SELECTION },
      facts: { 'ek-fingerprint': ek.fingerprint, 'ek-subject': ek.subject },
    }
  }

  appraise(input: AnswerInput): Appraisal {
    const state = readState(input)
    const facts = { 'ek-fingerprint': state.ekFingerprint }
    const checks: ClaimCheck[] = []
    const evidence = parseTpmEvidence(input.attestation.primaryEvidence)
    const reportData = reportDataDigest(nodeCrypto, {
      ...input.attestation,
      version: input.version,
      nonce: input.nonce,
    })
    try {
      verifyGenuine({ state, evidence, reportData }, checks)
      throw new UnverifiedError('ERR_TPM_REFERENCE', 'no registered reference values match')
    } catch (error) {
      if (!(error instanceof UnverifiedError)) throw error
      checks.push(failed(error))
      return { accepted: false, code: error.code, reason: error.message, hint: error.hint, checks, facts }
    }
  }
}

/** Steps 4 and 5 of `protocol/attestation-messages.md`: everything that makes the PCR values the guest's own. */
function verifyGenuine(
  input: { state: ChallengeState; evidence: TpmEvidence; reportData: Uint8Array },
  checks: ClaimCheck[],
): VerifiedQuote {
  const { state, evidence, reportData } = input
  const key = verifyAttestationKey(state.akPublic)
  checkSameKey(key, evidence.akPublic)
  checks.push(passed('attestation key', toHex(key.name)))
  const proof = credentialProof(nodeCrypto, state.secret, reportData)
  if (!nodeCrypto.timingSafeEqual(proof, evidence.credentialSecret)) {
    throw new UnverifiedError(
      'ERR_TPM_CREDENTIAL',
      'the answer does not prove that the attestation key is in this TPM',
      {
        hint: 'Another TPM answered, or nonce or public key were exchanged on the way.',
      },
    )
  }
  checks.push(passed('credential', 'recovered by the TPM with the endorsement key'))
  const quote = verifyQuote({ ...evidence.quote, key, qualifyingData: reportData, selection: SELECTION })
  checks.push(passed('quote', 'signed by the attestation key over this challenge and this public key'))
  return quote
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
  }
}

function passed(claim: string, found: string): ClaimCheck {
  return { claim, expected: found, found, ok: true }
}

function failed(error: UnverifiedError): ClaimCheck {
  const remedy = error.hint === undefined ? {} : { remedy: error.hint }
  return { claim: CLAIM_OF[error.code] ?? 'evidence', expected: 'genuine', found: error.message, ok: false, ...remedy }
}

const CLAIM_OF: Readonly<Record<string, string>> = {
  ERR_AK_CHANGED: 'attestation key',
  ERR_TPM_CREDENTIAL: 'credential',
  ERR_QUOTE_SIGNATURE: 'quote',
  ERR_QUOTE_STALE: 'quote',
  ERR_QUOTE_SELECTION: 'quote',
  ERR_QUOTE_PCRS: 'quote',
  ERR_QUOTE_SIGNER: 'quote',
}

export function parseTpmReference(document: string): { readonly id: string } {
  const fields = JsonFields.parse(document, 'reference values', { code: 'ERR_REFERENCE_VALUES', maxChars: 1024 * 1024 })
  return { id: fields.string('id', 128) }
}
