/** AR4SI claims (draft-ietf-rats-ar4si, section 2.3) that a TDX quote supports, lowered by what was found. */
import type { Finding } from '../evidence/verdict.ts'
import { type TrustVector, teeTrustVector } from '../token/trust-vector.ts'

/** What a code is about; codes that are not listed are about who speaks at all. */
const ABOUT: Readonly<Record<string, keyof TrustVector>> = {
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

export function tdxTrustVector(findings: readonly Finding[]): TrustVector {
  return teeTrustVector(ABOUT, findings)
}
