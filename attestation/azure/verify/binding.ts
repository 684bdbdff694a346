/**
 * What ties the halves of Azure's evidence together: the hardware's report carries the hash of the runtime claims, and the claims
 * name the key that signs the virtual TPM's quotes.
 */
import type { CryptoProvider } from '#protocol/crypto-provider'
import type { HclReport } from '../parse/hcl-report.ts'

const REPORT_DATA_BYTES = 64

/** What the hardware's report data must be: the hash of the runtime claims, and zeros. */
export function boundReportData(crypto: CryptoProvider, hcl: HclReport): Uint8Array {
  const hash = crypto.createHash(hcl.hash)
  hash.update(hcl.runtimeData)
  const expected = new Uint8Array(REPORT_DATA_BYTES)
  expected.set(hash.digest())
  return expected
}
