/** One quote, judged: signature, freshness, PCR values, strength of its hashes. Who holds its key is judged elsewhere. */
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { equalBytes, toHex } from '#protocol/encoding'
import { nodeCrypto } from '#protocol/node/crypto'
import type { Claims, ClaimValue, Finding } from '../../evidence/verdict.ts'
import type { QuoteAttest } from '../parse/attest.ts'
import type { TpmQuoteEvidence } from '../parse/evidence.ts'
import type { PcrValues } from '../parse/pcr-values.ts'
import { OBJECT_ATTRIBUTE, type PublicArea } from '../parse/public-area.ts'
import type { QuoteKey } from '../parse/quote-key.ts'
import { quoteSignedWith } from '../verify/quote-signature.ts'
import { quotedPcrs } from '../verify/quoted-pcrs.ts'

export interface QuoteAppraisal {
  readonly signed: boolean
  /** Those that the TPM vouches for; empty when the quote does not hold. */
  readonly pcrs: PcrValues
  readonly findings: readonly Finding[]
}

/** Agents of Confidential Containers pad what they are given to this length. */
const PADDED_BYTES = 64
const NONE: PcrValues = new Map()
/** Without all of these a key may sign what only looks like a quote, or live outside the TPM. */
const REQUIRED_ATTRIBUTES =
  OBJECT_ATTRIBUTE.fixedTPM |
  OBJECT_ATTRIBUTE.fixedParent |
  OBJECT_ATTRIBUTE.sensitiveDataOrigin |
  OBJECT_ATTRIBUTE.restricted |
  OBJECT_ATTRIBUTE.sign

export function appraiseQuote(
  quote: TpmQuoteEvidence,
  by: { readonly key: QuoteKey; readonly nonce: Uint8Array | undefined },
): QuoteAppraisal {
  const { attest } = quote
  const signedWith = quoteSignedWith(by.key, { bytes: quote.message, attest }, quote.signature)
  if (signedWith === undefined) return { signed: false, pcrs: NONE, findings: [badSignature()] }
  const values = pcrsOf(quote, signedWith.hash)
  return {
    signed: true,
    pcrs: values.pcrs,
    findings: [
      ...keyFindings(by.key.area),
      ...nonceFindings(attest, by.nonce),
      ...values.findings,
      ...strengthFindings(attest, signedWith.hash),
    ],
  }
}

/** What quotes say of themselves, and the PCR values they vouch for. */
export function quoteClaims(quotes: readonly Pick<TpmQuoteEvidence, 'attest'>[], pcrs: PcrValues): Claims {
  const attest = quotes[0]?.attest
  if (attest === undefined) return {}
  return {
    report_data: toHex(attest.extraData),
    pcrs: pcrClaims(pcrs),
    pcr_selection: quotes.flatMap((quote) =>
      quote.attest.selections.map(({ bank, pcrs: selected }) => `${bank}:${selected.join(',')}`),
    ),
    firmware_version: attest.firmwareVersion.toString(16).padStart(16, '0'),
    clock: Number(attest.clock),
    reset_count: attest.resetCount,
    restart_count: attest.restartCount,
    safe: attest.clockSafe,
    qualified_signer: toHex(attest.qualifiedSigner),
  }
}

/** By bank, and by number as text. */
export function pcrClaims(pcrs: PcrValues): ClaimValue {
  return Object.fromEntries(
    [...pcrs].map(([bank, values]) => [
      bank,
      Object.fromEntries([...values].map(([pcr, value]) => [String(pcr), toHex(value)])),
    ]),
  )
}

function pcrsOf(quote: TpmQuoteEvidence, hash: HashAlgorithm): { pcrs: PcrValues; findings: Finding[] } {
  const { attest, pcrs: values } = quote
  if (attest.selections.every(({ pcrs }) => pcrs.length === 0)) {
    return {
      pcrs: NONE,
      findings: [
        {
          severity: 'warning',
          code: 'no_pcrs_quoted',
          message: 'the quote covers no PCR, and so says nothing of what was booted',
          remedy: 'Quote PCRs of a bank that is active in this TPM.',
        },
      ],
    }
  }
  if (values === undefined) {
    return {
      pcrs: NONE,
      findings: [
        {
          severity: 'warning',
          code: 'unchecked_pcrs',
          message: 'the evidence has no PCR values, only their signed hash',
          expected: toHex(attest.pcrDigest),
          remedy: 'Add the values (tpm2_quote --pcr FILE).',
        },
      ],
    }
  }
  const result = quotedPcrs(nodeCrypto, { attest, hash }, values)
  if (result.holds) return { pcrs: result.pcrs, findings: [] }
  return {
    pcrs: NONE,
    findings: [
      {
        severity: 'contraindicated',
        code: 'pcr_digest_mismatch',
        message:
          result.missing === undefined
            ? 'the PCR values are not those that were signed'
            : `the value of ${result.missing}, which is quoted, is missing`,
        expected: toHex(attest.pcrDigest),
        found: result.missing === undefined ? toHex(result.digest) : 'no value',
        remedy: 'The values were changed, or a PCR was extended between quote and reading. Collect them together.',
      },
    ],
  }
}

function nonceFindings({ extraData }: QuoteAttest, nonce: Uint8Array | undefined): Finding[] {
  if (nonce === undefined || sameNonce(extraData, nonce)) return []
  return [
    {
      severity: 'contraindicated',
      code: 'nonce_mismatch',
      message: 'the quote answers another challenge',
      expected: toHex(nonce),
      found: toHex(extraData),
      remedy: 'The evidence is old or of another exchange. Attest again with a new nonce.',
    },
  ]
}

/** Equal, or equal once the nonce is padded as agents of Confidential Containers do. */
export function sameNonce(extraData: Uint8Array, nonce: Uint8Array): boolean {
  if (equalBytes(extraData, nonce)) return true
  if (extraData.length !== PADDED_BYTES || nonce.length >= PADDED_BYTES) return false
  const padded = new Uint8Array(PADDED_BYTES)
  padded.set(nonce)
  return equalBytes(extraData, padded)
}

function keyFindings(area: PublicArea | undefined): Finding[] {
  if (area === undefined) return []
  const missing = REQUIRED_ATTRIBUTES & ~area.attributes
  const decrypts = (area.attributes & OBJECT_ATTRIBUTE.decrypt) !== 0
  if (missing === 0 && !decrypts) return []
  return [
    {
      severity: 'contraindicated',
      code: 'ak_unsuitable',
      message: 'the attestation key may sign what only looks like a quote, or does not have to live in a TPM',
      expected: `attributes with ${REQUIRED_ATTRIBUTES.toString(16)}, without decrypt`,
      found: (area.attributes >>> 0).toString(16),
      remedy: 'Quote with a restricted signing key that the TPM made itself (tpm2_createak).',
    },
  ]
}

function strengthFindings({ selections }: QuoteAttest, hash: HashAlgorithm): Finding[] {
  const quoted = selections.filter(({ pcrs }) => pcrs.length > 0)
  const weak = (found: string, message: string): Finding => ({
    severity: 'warning',
    code: 'weak_hash',
    message,
    expected: 'sha256, sha384 or sha512',
    found,
    remedy: 'Quote with SHA-256 or better; collisions of SHA-1 are made.',
  })
  return [
    ...(hash === 'sha1' ? [weak('sha1', 'the quote is signed with SHA-1')] : []),
    ...(quoted.length > 0 && quoted.every(({ bank }) => bank === 'sha1')
      ? [weak('sha1', 'only PCRs of the SHA-1 bank are quoted')]
      : []),
  ]
}

function badSignature(): Finding {
  return {
    severity: 'contraindicated',
    code: 'quote_signature',
    message: 'the quote’s signature does not verify under the attestation key',
    remedy: 'Quote, signature or key were changed, or are of different machines. Attest again.',
  }
}
