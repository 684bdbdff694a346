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
