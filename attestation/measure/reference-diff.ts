/** What is different between two documents of reference values, member by member. */

export interface ReferenceDifference {
  /** Members from the outside in: "pcrs.sha256.9". */
  readonly member: string
  /** JSON; undefined where one document has nothing. */
  readonly before: string | undefined
  readonly after: string | undefined
}

/** In the order of the members' names. @param before JSON values, as parsed */
export function diffReferences(before: unknown, after: unknown): readonly ReferenceDifference[] {
  const [old, now] = [leaves(before), leaves(after)]
  return [...new Set([...old.keys(), ...now.keys()])]
    .toSorted((a, b) => a.localeCompare(b, 'en', { numeric: true }))
    .map((member) => ({ member, before: old.get(member), after: now.get(member) }))
    .filter((each) => each.before !== each.after)
}

function leaves(value: unknown, path = '', found = new Map<string, string>()): ReadonlyMap<string, string> {
  const members = typeof value === 'object' && value !== null ? Object.entries(value) : []
  if (members.length === 0) found.set(path, JSON.stringify(value))
  for (const [name, member] of members) leaves(member, path === '' ? name : `${path}.${name}`, found)
  return found
}
