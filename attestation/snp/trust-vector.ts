/** AR4SI claims (draft-ietf-rats-ar4si, section 2.3) that an SNP report supports, lowered by what was found. */
import type { Finding } from '../evidence/verdict.ts'
import type { TrustVector } from '../token/trust-vector.ts'

type Claim = keyof TrustVector

/** What a code is about; codes that are not listed are about who speaks at all. */
const ABOUT: Readonly<Record<string, Claim>> = {
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

/** Lowest values of the tiers warning and contraindicated. */
const LEVEL = { warning: 32, contraindicated: 96 } as const

/**
 * Without findings: a known instance (2) of genuine hardware (2), as it was configured (2), whose memory the host does not
 * see (2). What runs in it is claimed by nobody until reference values are compared.
 */
export function snpTrustVector(findings: readonly Finding[]): TrustVector {
  const vector: Record<Claim, number> = {
    'instance-identity': 2,
    configuration: 2,
    executables: 0,
    'file-system': 0,
    hardware: 2,
    'runtime-opaque': 2,
    'storage-opaque': 0,
    'sourced-data': 0,
  }
  for (const { code, severity } of findings) {
    const claim = ABOUT[code] ?? 'instance-identity'
    vector[claim] = Math.max(vector[claim], LEVEL[severity])
  }
  return vector
}
