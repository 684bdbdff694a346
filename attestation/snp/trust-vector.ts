/** AR4SI claims (draft-ietf-rats-ar4si, section 2.3) that an SNP report supports, lowered by what was found. */
import type { Finding } from '../evidence/verdict.ts'
import { type TrustVector, teeTrustVector } from '../token/trust-vector.ts'

/** What a code is about; codes that are not listed are about who speaks at all. */
const ABOUT: Readonly<Record<string, keyof TrustVector>> = {
  tcb_mismatch: 'hardware',
  tcb_order: 'hardware',
  product_mismatch: 'hardware',
  debug: 'runtime-opaque',
  migratable: 'runtime-opaque',
  policy_not_enforced: 'configuration',
  reserved_bits: 'configuration',
  vmpl: 'configuration',
  id_block_mismatch: 'executables',
}

export function snpTrustVector(findings: readonly Finding[]): TrustVector {
  return teeTrustVector(ABOUT, findings)
}
