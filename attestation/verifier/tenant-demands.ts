/** What a tenant demands of evidence now: its appraisal policies, read; the strict one when it has none. */
import { parseAppraisalPolicy } from '../appraisal/parse-policy.ts'
import { type AppraisalPolicy, STRICT_POLICY } from '../appraisal/policy.ts'
import type { StoredPolicy } from '../store/policy-store.ts'

export interface NamedPolicy {
  readonly id: string
  readonly policy: AppraisalPolicy
}

export interface TenantDemands {
  /** Evidence must satisfy one of them as a whole. Never empty. */
  readonly policies: readonly NamedPolicy[]
  /** Whether the operator's own choice of TPM CAs counts: for the default tenant. */
  readonly operator: boolean
}

/** Name of what counts without any policy. */
export const STRICT_ID = 'strict'

/** Documents are read at each attestation; those that were read stay read. */
const MAX_KEPT = 256
const kept = new Map<string, AppraisalPolicy>()

/** @throws MalformedError ERR_POLICY_MALFORMED, ERR_CONDITION for a document that no release of ours stored */
export function tenantDemands(stored: readonly StoredPolicy[], operator: boolean): TenantDemands {
  const policies = stored.map(({ id, document }) => ({ id, policy: readPolicy(document) }))
  return { policies: policies.length > 0 ? policies : [{ id: STRICT_ID, policy: STRICT_POLICY }], operator }
}

/** @throws as `parseAppraisalPolicy` */
export function readPolicy(document: string): AppraisalPolicy {
  const known = kept.get(document)
  if (known !== undefined) return known
  const policy = parseAppraisalPolicy(document)
  const [oldest] = kept.keys()
  if (kept.size >= MAX_KEPT && oldest !== undefined) kept.delete(oldest)
  kept.set(document, policy)
  return policy
}
