/**
 * Certificates of endorsement keys that came with evidence in a file (TCG EK Credential Profile 2.6, section 3). They name the TPM
 * that the sender says it has; that the attestation key lives in it is nothing that a file can show.
 */
import type { ParsedCertificate } from '../../x509/certificate.ts'
import type { ParsedCrl } from '../../x509/crl.ts'
import { type PathProblem, verifyPath } from '../../x509/path.ts'

export interface EndorsementInput {
  /** With the evidence. */
  readonly sent: readonly ParsedCertificate[]
  readonly candidates: readonly ParsedCertificate[]
  readonly anchors: readonly ParsedCertificate[]
  readonly crls: readonly ParsedCrl[]
  readonly at: Date
}

export interface Endorsement {
  readonly certificate: ParsedCertificate
  /** Empty: it leads to an anchor. */
  readonly problems: readonly PathProblem[]
}

/** tcg-kp-EKCertificate */
const EK_USAGE = '2.23.133.8.1'
const MAX_DEPTH = 6

export function judgeEndorsements(input: EndorsementInput): readonly Endorsement[] {
  const { sent, candidates, anchors, crls, at } = input
  return sent.filter(isEndorsement).map((leaf) => {
    const { problems } = verifyPath({
      leaf,
      candidates: [...sent, ...candidates],
      anchors,
      crls,
      at,
      maxDepth: MAX_DEPTH,
    })
    return { certificate: leaf, problems }
  })
}

/** For decryption, or agreement on a key; Google's certificates of signing keys name the same purpose. */
function isEndorsement({ extendedKeyUsage, keyUsage }: ParsedCertificate): boolean {
  return extendedKeyUsage?.includes(EK_USAGE) === true && keyUsage?.has('digitalSignature') !== true
}
