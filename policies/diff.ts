/**
 * What a change of policy newly allows, and what it newly denies. Each policy is spelt out as its permissions; what one
 * has and the other has not, in any words, is the difference, whatever the text looks like.
 */
import { type Permission, permissionsOf } from './permissions.ts'
import type { WorkloadPolicy } from './workload.ts'

export interface PolicyDifference {
  /** "containers.web.env.MODE: test" */
  readonly allowed: readonly string[]
  readonly denied: readonly string[]
}

export function diffPolicies(before: WorkloadPolicy, after: WorkloadPolicy): PolicyDifference {
  return { allowed: beyond(before, after), denied: beyond(after, before) }
}

/** What the second permits and the first does not. */
function beyond(first: WorkloadPolicy, second: WorkloadPolicy): string[] {
  const held = new Set(permissionsOf(first).map(({ text }) => text))
  const isNew = ({ text, within }: Permission): boolean => !held.has(text) && within?.(first) !== true
  return [
    ...new Set(permissionsOf(second).flatMap((permission) => (isNew(permission) ? [permission.text] : []))),
  ].sort()
}
