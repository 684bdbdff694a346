/** Counting signers: how many requirements can each have a signer of their own? */

/**
 * The largest set of different signers, one per requirement (a maximum matching by augmenting paths).
 *
 * @param accepted for each requirement the signers that satisfy it
 */
export function mostSigners(accepted: readonly (readonly string[])[]): readonly string[] {
  /** Signer → the requirement it stands for. */
  const assigned = new Map<string, number>()
  const assign = (requirement: number, tried: Set<string>): boolean => {
    for (const signer of accepted[requirement] ?? []) {
      if (tried.has(signer)) continue
      tried.add(signer)
      const holder = assigned.get(signer)
      if (holder === undefined || assign(holder, tried)) {
        assigned.set(signer, requirement)
        return true
      }
    }
    return false
  }
  for (const requirement of accepted.keys()) assign(requirement, new Set())
  return [...assigned.keys()]
}
