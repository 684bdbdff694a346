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
import { parseReferenceValues, type TpmReferenceValues } from '../measure/reference-values.ts'
import type { StoredReference } from '../store/reference-store.ts'
import { appraiseTpmEvidence, QUOTED_PCRS, type TpmClaims } from '../tpm/appraise.ts'
import { verifyAttestationKey } from '../tpm/verify/attestation-key.ts'
import { verifyEkChain } from '../tpm/verify/ek-chain.ts'
import { makeCredential } from '../tpm/verify/make-credential.ts'
import { parseCertificate } from '../x509/certificate.ts'
import type { AnswerInput, Appraisal, ChallengeOffer, EvidenceKind } from './evidence.ts'

export interface TpmEvidenceOptions {
  /** PEM certificates of CAs whose TPMs are believed. */
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
      tpm: {
        ...makeCredential({ ek, akName: ak.name, secret }),
        pcrSelection: { bank: 'sha256', pcrs: QUOTED_PCRS.pcrs },
      },
    }
  }

  appraise(input: AnswerInput): Appraisal {
    const { version, nonce, attestation } = input
    const state = readState(input)
    const reportData = reportDataDigest(nodeCrypto, { ...attestation, version, nonce })
    const verdict = appraiseTpmEvidence({
      evidence: parseTpmEvidence(attestation.primaryEvidence),
      key: verifyAttestationKey(state.akPublic),
      secret: state.secret,
      reportData,
      initdataToml: attestation.initdataToml,
      references: input.references.map(readReference),
    })
    const facts = { 'ek-fingerprint': state.ekFingerprint, ...factsOf(verdict.claims) }
    if (!verdict.accepted) return { ...verdict, facts }
    // The log's description is for the tenant's records; in the token it would only grow the header it travels in.
    const { events: _, ...teeClaims } = verdict.claims
    return { ...verdict, reportData: toHex(reportData), teeClaims, facts }
  }
}

/** PCR values and the log in words, for the tenant's record. */
function factsOf(claims: TpmClaims | undefined): Record<string, string> {
  if (claims === undefined) return {}
  const pcrs = Object.entries(claims.pcrs).map(([pcr, value]) => [`pcr ${pcr}`, value])
  const log = claims.events.slice(0, MAX_LOG_LINES).join('\n').slice(0, MAX_LOG_CHARACTERS)
  return { ...Object.fromEntries(pcrs), 'event-log': log, 'reset-count': String(claims.reset_count) }
}

/** @throws MalformedError ERR_REFERENCE_VALUES */
export function parseTpmReference(document: string): { readonly id: string } {
  return parseReferenceValues(document)
}

function readReference({ document }: StoredReference): TpmReferenceValues {
  return parseReferenceValues(document)
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
