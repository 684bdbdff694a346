/** Where appraisals get collateral from that did not come with the evidence. */
import { type Collateral, NO_COLLATERAL } from '../evidence/collateral.ts'
import type { Claims } from '../evidence/verdict.ts'

export interface KnownCollateral {
  readonly collateral: Collateral
  /** Whether everything that there is to ask for is there and fresh, or was asked for in vain a moment ago. */
  readonly complete: boolean
}

export interface WantedCollateral {
  /** Whose guest sent the evidence. */
  readonly tenant: string
  /** The evidence brought the certificates of its key; lists of revoked ones are wanted all the same. */
  readonly keyKnown: boolean
}

export interface FetchedCollateral {
  readonly collateral: Collateral
  /** To be called when the evidence turned out genuine: then what was asked for it counts against nobody. */
  readonly proven: () => void
}

export interface CollateralSource {
  /** What is there without asking anybody. @param claims of a first look at the evidence */
  known(claims: Claims, wanted: WantedCollateral): Promise<KnownCollateral>
  /** The same after asking; what could not be had is missing. */
  fetched(claims: Claims, wanted: WantedCollateral): Promise<FetchedCollateral>
}

/** Evidence must bring everything along. */
export const NO_SOURCE: CollateralSource = {
  known: async () => ({ collateral: NO_COLLATERAL, complete: true }),
  fetched: async () => ({ collateral: NO_COLLATERAL, proven: () => {} }),
}
