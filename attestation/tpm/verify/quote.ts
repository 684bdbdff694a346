/**
 * Is this quote genuine, fresh, and about exactly the PCRs that were asked for? What the PCRs say is judged elsewhere
 * (`../appraise.ts`).
 */
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { equalBytes, toHex } from '#protocol/encoding'
import { UnverifiedError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import { parseQuoteAttest, type QuoteAttest } from '../parse/attest.ts'
import type { BankSelection } from '../parse/pcr-selection.ts'
import { objectName, type PublicArea, primaryQualifiedName } from '../parse/public-area.ts'
import { parseTpmSignature, type TpmSignature } from '../parse/signature.ts'
import type { AttestationKey } from './attestation-key.ts'
import { publicKeyOf } from './public-key.ts'
import { tpmSignatureHolds } from './quote-signature.ts'
import { quotedPcrs } from './quoted-pcrs.ts'

const TPM_RH_ENDORSEMENT = 0x4000_000b

export interface QuoteInput {
  readonly key: AttestationKey
  /** TPMS_ATTEST. */
  readonly message: Uint8Array
  /** TPMT_SIGNATURE. */
  readonly signature: Uint8Array
  /** What extraData must be. */
  readonly qualifyingData: Uint8Array
  readonly selection: BankSelection
  /** By PCR number; those that are not selected are ignored. */
  readonly pcrs: readonly (Uint8Array | undefined)[]
}

declare const verified: unique symbol

/** PCR values that the TPM vouched for. */
export interface VerifiedQuote {
  readonly [verified]: true
  readonly attest: QuoteAttest
  readonly pcrs: ReadonlyMap<number, Uint8Array>
}

/**
 * Throws `UnverifiedError`: ERR_QUOTE_SIGNATURE, ERR_QUOTE_STALE (other extraData), ERR_QUOTE_SELECTION (other PCRs),
 * ERR_QUOTE_PCRS (the values are not those signed), ERR_QUOTE_SIGNER (key outside the endorsement hierarchy);
 * `MalformedError` for bytes that are no quote.
 */
export function verifyQuote(input: QuoteInput): VerifiedQuote {
  const attest = parseQuoteAttest(input.message)
  const { hash } = verifyQuoteSignature(input.key.publicArea, input.message, input.signature)
  if (!nodeCrypto.timingSafeEqual(attest.extraData, input.qualifyingData)) {
    throw new UnverifiedError('ERR_QUOTE_STALE', 'the quote is bound to another challenge or another key', {
      hint: 'The quote answers an earlier challenge, or the public key was exchanged on the way. Attest again.',
    })
  }
  checkSelection(attest.selections, input.selection)
  const signer = primaryQualifiedName(nodeCrypto, TPM_RH_ENDORSEMENT, objectName(nodeCrypto, input.key.encoded))
  // A key elsewhere would show obfuscated reset counters (TPM 2.0 part 1, section 31.2).
  if (!equalBytes(attest.qualifiedSigner, signer)) {
    throw new UnverifiedError('ERR_QUOTE_SIGNER', 'the quote’s key is not a primary key of the endorsement hierarchy')
  }
  return { attest, pcrs: checkPcrDigest({ attest, hash }, input) } as VerifiedQuote
}

/** The signature over TPMS_ATTEST by a key of any kind that TPMs sign quotes with. Throws as `verifyQuote`. */
export function verifyQuoteSignature(area: PublicArea, message: Uint8Array, signature: Uint8Array): TpmSignature {
  const parsed = parseTpmSignature(signature)
  if (tpmSignatureHolds({ key: publicKeyOf(area), area }, message, parsed)) return parsed
  throw new UnverifiedError('ERR_QUOTE_SIGNATURE', 'the quote’s signature does not verify under its key')
}

/** TPMs quote nothing, without an error, for a bank they do not have: so the selection must be the one asked for. */
function checkSelection(found: readonly BankSelection[], wanted: BankSelection): void {
  const [only, ...more] = found
  const text = (selection: BankSelection): string => `${selection.bank}:${selection.pcrs.join(',')}`
  if (only !== undefined && more.length === 0 && text(only) === text(wanted)) return
  throw new UnverifiedError(
    'ERR_QUOTE_SELECTION',
    `the quote covers ${found.map(text).join(' and ') || 'nothing'}, asked for was ${text(wanted)}`,
    { hint: 'If the bank is right but empty, it is not active in this TPM.' },
  )
}

function checkPcrDigest(
  quote: { readonly attest: QuoteAttest; readonly hash: HashAlgorithm },
  input: QuoteInput,
): ReadonlyMap<number, Uint8Array> {
  const { bank, pcrs } = input.selection
  const values = new Map(
    pcrs.flatMap((pcr) => {
      const value = input.pcrs[pcr]
      return value === undefined ? [] : [[pcr, value]]
    }),
  )
  const result = quotedPcrs(nodeCrypto, quote, new Map([[bank, values]]))
  if (result.holds) return values
  throw new UnverifiedError(
    'ERR_QUOTE_PCRS',
    result.missing === undefined
      ? `the PCR values delivered hash to ${toHex(result.digest)}, signed was ${toHex(quote.attest.pcrDigest)}`
      : `the value of PCR ${result.missing} is missing`,
  )
}
