/** Intel's provisioning certification service, version 4 (api.portal.trustedservices.intel.com, "Intel SGX and Intel TDX"). */
import type { Claims } from '../verdict.ts'
import type { CollateralRequest, Endpoints } from './fetch-collateral.ts'

/** TCB information and quoting enclave of the platform, and the lists of both CAs. None for other evidence. */
export function pcsRequests(claims: Claims, { intelPcs, intelCertificates }: Endpoints): CollateralRequest[] {
  const { fmspc, pck_ca_type: ca } = claims
  if (typeof fmspc !== 'string' || !/^[0-9a-f]{12}$/.test(fmspc)) return []
  const lists = ca === 'processor' || ca === 'platform' ? [ca] : ['processor', 'platform']
  return [
    {
      url: `${intelPcs}/tdx/certification/v4/tcb?fmspc=${fmspc}`,
      chainHeaders: ['tcb-info-issuer-chain'],
      chosen: true,
    },
    {
      url: `${intelPcs}/tdx/certification/v4/qe/identity`,
      chainHeaders: ['sgx-enclave-identity-issuer-chain'],
      chosen: false,
    },
    ...lists.map((name) => ({
      url: `${intelPcs}/sgx/certification/v4/pckcrl?ca=${name}&encoding=der`,
      chainHeaders: ['sgx-pck-crl-issuer-chain'],
      chosen: false,
    })),
    { url: `${intelCertificates}/IntelSGXRootCA.der`, chainHeaders: [], chosen: false },
  ]
}
