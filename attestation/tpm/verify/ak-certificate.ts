/**
 * Is there a certificate that says of the quote's key that a TPM holds it, issued by a CA that the tenant trusts? (TCG EK
 * Credential Profile 2.6 and Platform Attribute conventions; attestation keys: TCG "TPM 2.0 Keys for Device Identity and
 * Attestation" 1.00, section 5.) Nothing is thrown: what is wrong is told.
 */
import { equalBytes } from '#protocol/encoding'
import type { ParsedCertificate } from '../../x509/certificate.ts'
import type { ParsedCrl } from '../../x509/crl.ts'
import { type PathProblem, verifyPath } from '../../x509/path.ts'
import type { QuoteKey } from '../parse/quote-key.ts'

/**
 * tcg-kp-AIKCertificate, and Microsoft's purpose for the same. Any other certificate of a trusted CA, a web server's say, does not
 * make its key a TPM's.
 */
const AK_USAGES: readonly string[] = ['2.23.133.8.3', '1.3.6.1.4.1.311.21.36']
/** tcg-kp-EKCertificate: Google's CA says it of the signing keys of its virtual TPMs too, and then that they are for signing. */
const EK_USAGE = '2.23.133.8.1'
const MAX_DEPTH = 6
const CRL_DISTRIBUTION = '2.5.29.31'

export interface AkCertificateInput {
  readonly key: QuoteKey
  /** Of the evidence and of the collateral: leaves and CAs alike. */
  readonly certificates: readonly ParsedCertificate[]
  readonly anchors: readonly ParsedCertificate[]
  readonly crls: readonly ParsedCrl[]
  readonly at: Date
}

export type AkBinding =
  | {
      readonly bound: true
      readonly certificate: ParsedCertificate
      /** Leaf first, anchor last. */
      readonly path: readonly ParsedCertificate[]
      /** Those that name a revocation list of their issuer which is not among the given. */
      readonly unlisted: readonly ParsedCertificate[]
    }
  /** No certificate names this key. */
  | { readonly bound: false; readonly certificate: undefined }
  | { readonly bound: false; readonly certificate: ParsedCertificate; readonly problems: readonly PathProblem[] }
  | { readonly bound: false; readonly certificate: ParsedCertificate; readonly unsuitable: string }

export function bindByCertificate(input: AkCertificateInput): AkBinding {
  const wanted = new Uint8Array(input.key.key.export({ format: 'der', type: 'spki' }))
  const leaves = input.certificates.filter(({ publicKey }) => equalBytes(spkiOf(publicKey), wanted))
  const bindings = leaves.map((certificate) => judge(certificate, input))
  return bindings.find(({ bound }) => bound) ?? bindings[0] ?? { bound: false, certificate: undefined }
}

function judge(certificate: ParsedCertificate, input: AkCertificateInput): AkBinding {
  const unsuitable = whyUnsuitable(certificate)
  if (unsuitable !== undefined) return { bound: false, certificate, unsuitable }
  const { path, problems } = verifyPath({
    leaf: certificate,
    candidates: input.certificates,
    anchors: input.anchors,
    crls: input.crls,
    at: input.at,
    maxDepth: MAX_DEPTH,
  })
  if (problems.length === 0) {
    const unlisted = path.filter(
      (link, index) =>
        index < path.length - 1 &&
        link.extension(CRL_DISTRIBUTION) !== undefined &&
        !input.crls.some((crl) => equalBytes(crl.issuer, link.issuer)),
    )
    return { bound: true, certificate, path, unlisted }
  }
  return { bound: false, certificate, problems }
}

/** Why a certificate is not one of an attestation key. */
function whyUnsuitable({ basicConstraints, keyUsage, extendedKeyUsage }: ParsedCertificate): string | undefined {
  if (basicConstraints?.ca === true) return 'it is a CA’s'
  if (keyUsage !== undefined && !keyUsage.has('digitalSignature')) return 'its key is not for signatures'
  if (extendedKeyUsage?.some((usage) => AK_USAGES.includes(usage)) === true) return undefined
  if (extendedKeyUsage?.includes(EK_USAGE) === true && keyUsage !== undefined) return undefined
  return `its extended key usage names none of ${AK_USAGES.join(', ')}`
}

function spkiOf(key: ParsedCertificate['publicKey']): Uint8Array {
  return new Uint8Array(key.export({ format: 'der', type: 'spki' }))
}
