/** A verifier that asks a server which answers like AMD's and Intel's, and trusts the makers of `hardware-guests.ts`. */
import type { ExecutionContext } from 'ava'
import type { EvidenceSource } from '#attestation/client/evidence-source'
import type { VerifierConfig } from '#attestation/verifier/verifier'
import { encodePem } from '#attestation/x509/pem'
import {
  amd,
  attesterOf,
  INITDATA,
  intel,
  policyWith,
  snpReference,
  snpSource,
  tdxReference,
} from './hardware-guests.ts'
import { type Site, startSite } from './site.ts'
import type { VendorServer } from './vendor-server.ts'

/** A VCEK comes without the certificate of its authority, which the verifier has of AMD. */
export const ROOTS: readonly string[] = [amd.ark.der, amd.ask.der, intel.root.der].map((bytes) =>
  encodePem({ label: 'CERTIFICATE', bytes }),
)
export const POLICY: string = policyWith([amd.ark.der, intel.root.der])
/** Questions are counted by tests, and one that took too long would be asked again. */
const COLLATERAL_TIMEOUT_MS = 120_000

/** @param vendors undefined: nobody is asked */
export async function served(
  t: ExecutionContext,
  vendors: VendorServer | undefined,
  config: Partial<VerifierConfig> = {},
): Promise<Site> {
  const collateral =
    vendors === undefined
      ? {}
      : {
          collateralEndpoints: vendors.endpoints,
          collateralTimeoutMs: COLLATERAL_TIMEOUT_MS,
          trustedCollateralRoots: ROOTS,
        }
  const site = await startSite(t, { ...collateral, ...config })
  await trustMakers(site)
  return site
}

/** Policy and reference values of one tenant. @param admin default: the default tenant's */
export async function trustMakers({ admin }: Pick<Site, 'admin'>): Promise<void> {
  await admin.putPolicy('ours', POLICY)
  await admin.putReference(snpReference('web', [{ vcpus: 1, measurement: 'ab'.repeat(48) }]))
  await admin.putReference(tdxReference('td', {}))
}

/** @param url default: of the default tenant */
export const attest = (site: Site, source: EvidenceSource, url?: string): Promise<{ token: string }> =>
  attesterOf(site, source, url).attest({ initdataToml: INITDATA })

/** An SNP guest whose host gave it no certificates. */
export const bare = (): EvidenceSource => snpSource({ send: [] })
