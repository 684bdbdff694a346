/** The libraries behind OpenPGP and sigstore bundles, each loaded when the first policy asks for it. */
import type { SignatureEngines } from '../policy/requirement.ts'
import { provideOpenPgpCurves } from './openpgp-curves.ts'

export const signatureEngines: SignatureEngines = {
  openpgp: async () => {
    provideOpenPgpCurves()
    return (await import('../signature/openpgp.ts')).openPgp
  },
  bundles: async () => (await import('../signature/bundle.ts')).sigstoreBundles,
}
