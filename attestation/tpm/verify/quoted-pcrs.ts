/** Are these the PCR values that the TPM signed the hash of? (TPM 2.0 part 3, section 18.4) */
import type { CryptoProvider, HashAlgorithm } from '#protocol/crypto-provider'
import { equalBytes } from '#protocol/encoding'
import type { QuoteAttest } from '../parse/attest.ts'
import type { PcrValues } from '../parse/pcr-values.ts'

export type QuotedPcrs =
  | { readonly holds: true; readonly pcrs: PcrValues }
  | { readonly holds: false; readonly missing: string }
  | { readonly holds: false; readonly missing?: undefined; readonly digest: Uint8Array }

/**
 * The values of exactly the PCRs that the quote selects; others that came with them were not signed, and are left out.
 * @param hash of the signature: pcrDigest is made with that, not with the banks'
 */
export function quotedPcrs(
  crypto: CryptoProvider,
  quote: { readonly attest: QuoteAttest; readonly hash: HashAlgorithm },
  values: PcrValues,
): QuotedPcrs {
  const digest = crypto.createHash(quote.hash)
  const quoted = new Map<HashAlgorithm, Map<number, Uint8Array>>()
  for (const { bank, pcrs } of quote.attest.selections) {
    for (const pcr of pcrs) {
      const value = values.get(bank)?.get(pcr)
      if (value === undefined) return { holds: false, missing: `${bank}:${pcr}` }
      digest.update(value)
      const ofBank = quoted.get(bank) ?? new Map<number, Uint8Array>()
      quoted.set(bank, ofBank.set(pcr, value))
    }
  }
  const found = digest.digest()
  return equalBytes(found, quote.attest.pcrDigest) ? { holds: true, pcrs: quoted } : { holds: false, digest: found }
}
