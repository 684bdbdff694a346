/**
 * Trustworthiness claims of an attestation result (AR4SI, draft-ietf-rats-ar4si section 2.3) and the tier they add up to.
 */

/** One value per claim, -128..127; 0 is "no claim made". */
export interface TrustVector {
  readonly 'instance-identity': number
  readonly configuration: number
  readonly executables: number
  readonly 'file-system': number
  readonly hardware: number
  readonly 'runtime-opaque': number
  readonly 'storage-opaque': number
  readonly 'sourced-data': number
}

export type TrustTier = 'none' | 'affirming' | 'warning' | 'contraindicated'

/** Worst last, so that the overall status is a maximum. */
const TIERS: readonly TrustTier[] = ['none', 'affirming', 'warning', 'contraindicated']

/** Lowest values of the tiers warning and contraindicated. */
const LOWERED = { warning: 32, contraindicated: 96 } as const

/**
 * What the report of a TEE supports. Without findings: a known instance (2) of genuine hardware (2), as it was configured
 * (2), whose memory the host does not see (2). What runs in it is claimed by nobody until reference values are compared.
 *
 * @param about the claim that each code lowers; codes that are not listed are about who speaks at all
 */
export function teeTrustVector(
  about: Readonly<Record<string, keyof TrustVector>>,
  findings: readonly { readonly code: string; readonly severity: 'warning' | 'contraindicated' }[],
): TrustVector {
  const vector: Record<keyof TrustVector, number> = {
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
    const claim = about[code] ?? 'instance-identity'
    vector[claim] = Math.max(vector[claim], LOWERED[severity])
  }
  return vector
}

/**
 * What a TPM quote supports after every check has passed.
 *
 * `hardware`, `runtime-opaque` and `storage-opaque` stay at 0: a TPM does not say that memory is hidden from the host,
 * and a software TPM could not be believed if it did. The status is affirming all the same, because whoever trusts the
 * TPM's CA has decided that the rest is enough; a relying party that wants hardware asks for `hardware` itself.
 *
 * @param imagesNamed whether the evidence also covers the workload's images (AR4SI: executables 2), not only what was
 *   booted (3)
 */
export function tpmTrustVector(imagesNamed: boolean): TrustVector {
  return {
    'instance-identity': 2,
    configuration: 2,
    executables: imagesNamed ? 2 : 3,
    'file-system': 2,
    hardware: 0,
    'runtime-opaque': 0,
    'storage-opaque': 0,
    'sourced-data': 0,
  }
}

/** AR4SI section 2.3.2. Negative tiers reach one further, as negative numbers of one byte do. */
export function tierOf(value: number): TrustTier {
  if (value >= -1 && value <= 1) return 'none'
  if (value >= -32 && value <= 31) return 'affirming'
  return value >= -96 && value <= 95 ? 'warning' : 'contraindicated'
}

/** The worst tier of all claims. */
export function statusOf(vector: TrustVector): TrustTier {
  const worst = Math.max(...Object.values(vector).map((value) => TIERS.indexOf(tierOf(value))))
  return TIERS[worst] ?? 'contraindicated'
}
