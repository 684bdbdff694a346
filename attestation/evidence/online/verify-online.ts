/** A verdict with what AMD and Intel hand out, for what the first one left unchecked. */
import { type Collateral, mergeCollateral } from '../collateral.ts'
import { type EvidenceRequest, type JudgedEvidence, verifyEvidence } from '../verify-evidence.ts'
import { type Endpoints, fetchCollateral, PUBLIC_ENDPOINTS } from './fetch-collateral.ts'

export interface OnlineVerdict {
  readonly judged: JudgedEvidence
  /** Given and fetched. */
  readonly collateral: Collateral
}

/** Nothing is asked for when nothing stayed unchecked. Throws as `verifyEvidence`. */
export async function verifyEvidenceOnline(
  request: EvidenceRequest,
  endpoints: Endpoints = PUBLIC_ENDPOINTS,
): Promise<OnlineVerdict> {
  const judged = await verifyEvidence(request)
  if (!judged.reasons.some(({ code }) => code.startsWith('unchecked_'))) {
    return { judged, collateral: request.collateral }
  }
  const collateral = mergeCollateral(request.collateral, await fetchCollateral(judged.claims, endpoints))
  return { judged: await verifyEvidence({ ...request, collateral }), collateral }
}
