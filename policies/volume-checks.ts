/** What the host delivers for a volume, against the volume's rule. Each check throws `DeniedError` ERR_POLICY_DENIED. */
import { denied, listText } from './container-checks.ts'
import type { VolumeRequest } from './requests.ts'
import { type ContentVolumeRule, isContentRule, type VolumeRule } from './volume-rule.ts'

export function checkVolume(
  volumes: ReadonlyMap<string, VolumeRule>,
  { kind, name }: VolumeRequest,
): ContentVolumeRule {
  const rule = volumes.get(name)
  if (rule !== undefined && rule.kind === kind && isContentRule(rule)) return rule
  const allowed = [...volumes.values()].filter(isContentRule).map((known) => `${known.kind}:${known.name}`)
  throw denied('volumes', listText(allowed), `${kind}:${name}`)
}

/** @param before digest of the content that the volume has; undefined: none yet */
export function checkContent(rule: ContentVolumeRule, digest: string, before: string | undefined): void {
  if (rule.digest !== undefined && rule.digest !== digest) {
    throw denied(`volumes.${rule.name}.digest`, rule.digest, digest)
  }
  if (before !== undefined && before !== digest && !rule.mutable) {
    throw denied(`volumes.${rule.name}.mutable`, `the content that it has (${before})`, digest)
  }
}
