/** Are TCB information and identities Intel's, and current? Both are signed by the same certificate, under the same root. */
import type { Finding } from '../../evidence/verdict.ts'
import type { ParsedCertificate } from '../../x509/certificate.ts'
import type { ParsedCrl } from '../../x509/crl.ts'
import { nameAttribute } from '../../x509/name.ts'
import { verifyPath } from '../../x509/path.ts'
import { SIGNATURE_OID } from '../../x509/signature.ts'
import { pathFindings } from '../findings.ts'
import type { SignedDocument } from '../parse/collateral.ts'
import { verifyByCertificate } from './ecdsa.ts'

/** What chains of this TEE are judged with. */
export interface TrustContext {
  readonly certificates: readonly ParsedCertificate[]
  readonly crls: readonly ParsedCrl[]
  readonly anchors: readonly ParsedCertificate[]
  readonly at: Date
}

export const COMMON_NAME = '2.5.4.3'
/** All that Intel uses. */
export const ALGORITHMS: ReadonlySet<string> = new Set([SIGNATURE_OID.ecdsaSha256])
const SIGNER = 'SGX TCB Signing'
const MAX_SIGNERS = 16

/** One verification of documents: the signer's path is judged once for all of them. */
export class DocumentVerifier {
  readonly #trust: TrustContext
  readonly #signers: readonly ParsedCertificate[]
  readonly #paths = new Map<ParsedCertificate, readonly Finding[]>()

  constructor(trust: TrustContext) {
    this.#trust = trust
    const isSigner = ({ subject }: ParsedCertificate): boolean =>
      nameAttribute(subject, COMMON_NAME)?.includes(SIGNER) === true
    this.#signers = trust.certificates.filter(isSigner).slice(0, MAX_SIGNERS)
  }

  /**
   * @param what for messages: "TCB information"
   * @param unchecked code of the finding when nobody's signature can be checked
   */
  verify(document: SignedDocument<Dated>, what: string, unchecked: string): DocumentFindings {
    if (this.#signers.length === 0) {
      const message = `no certificate of Intel's TCB signer is known, so the ${what} is not believed`
      const remedy = 'Add the issuer chain (TCB-Info-Issuer-Chain) to the collateral.'
      return { genuine: false, findings: [{ severity: 'warning', code: unchecked, message, remedy }] }
    }
    const signer = this.#signers.find((candidate) =>
      verifyByCertificate(candidate, document.signed, document.signature),
    )
    if (signer === undefined) {
      return {
        genuine: false,
        findings: [
          {
            severity: 'contraindicated',
            code: 'collateral_signature',
            message: `the ${what} in ${document.name} is not signed by Intel's TCB signer`,
            remedy: 'Fetch it anew, and keep it byte for byte as it came.',
          },
        ],
      }
    }
    const path = this.#path(signer)
    const genuine = !path.some(({ code }) => UNTRUSTED.has(code))
    return { genuine, findings: [...path, ...timeFindings(document, what, this.#trust.at)] }
  }

  #path(signer: ParsedCertificate): readonly Finding[] {
    const known = this.#paths.get(signer)
    if (known !== undefined) return known
    const { certificates, ...trust } = this.#trust
    const findings = pathFindings(
      verifyPath({
        leaf: signer,
        candidates: certificates,
        requireCrl: 'all',
        maxDepth: 4,
        algorithms: ALGORITHMS,
        ...trust,
      }).problems,
    )
    this.#paths.set(signer, findings)
    return findings
  }
}

export interface Dated {
  readonly issueDate: Date
  readonly nextUpdate: Date
}

export interface DocumentFindings {
  /** The document says what Intel says; it may be out of date all the same. */
  readonly genuine: boolean
  readonly findings: readonly Finding[]
}

/** With one of these, the signer may be anybody. */
const UNTRUSTED: ReadonlySet<string> = new Set([
  'unchecked_chain',
  'chain_untrusted',
  'chain_signature',
  'chain_issuer',
  'chain_algorithm',
  'chain_extension',
  'chain_length',
  'certificate_revoked',
])

function timeFindings({ content, name }: SignedDocument<Dated>, what: string, at: Date): Finding[] {
  const late = at > content.nextUpdate
  if (!late && at >= content.issueDate) return []
  return [
    {
      severity: 'contraindicated',
      code: late ? 'collateral_expired' : 'collateral_not_yet_valid',
      message: `the ${what} in ${name} is ${late ? 'no longer' : 'not yet'} valid`,
      expected: `${content.issueDate.toISOString()} to ${content.nextUpdate.toISOString()}`,
      found: at.toISOString(),
      remedy: late ? 'Fetch the collateral anew, or judge at the time it is for (--at).' : 'Check the clock (--at).',
    },
  ]
}
