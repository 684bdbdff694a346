/** AR4SI claims (draft-ietf-rats-ar4si, section 2.3) that a TDX quote supports, lowered by what was found. */
import type { Finding } from '../evidence/verdict.ts'
import type { TrustVector } from '../token/trust-vector.ts'

type Claim = keyof TrustVector

/** What a code is about; codes that are not listed are about who speaks at all. */
const ABOUT: Readonly<Record<string, Claim>> = {
  tcb_status: 'hardware',
  tcb_not_supported: 'hardware',
  tcb_info_mismatch: 'hardware',
  unchecked_tcb: 'hardware',
  tdx_module_unknown: 'hardware',
  tdx_module_signer: 'hardware',
  tdx_module_attributes: 'hardware',
  debug: 'runtime-opaque',
  profiling: 'runtime-opaque',
  migratable: 'runtime-opaque',
  service_td: 'runtime-opaque',
  sept_ve: 'configuration',
  reserved_bits: 'configuration',
  unjudged_attributes: 'configuration',
  xfam: 'configuration',
  event_log_mismatch: 'executables',
  event_log_incomplete: 'executables',
}

/** Lowest values of the tiers warning and contraindicated. */
const LEVEL = { warning: 32, contraindicated: 96 } as const

/**
 * Without findings: a known instance (2) of genuine hardware (2), as it was configured (2), whose memory the host does not
 * see (2). What runs in it is claimed by nobody until reference values are compared.
 */
export function tdxTrustVector(findings: readonly Finding[]): TrustVector {
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
