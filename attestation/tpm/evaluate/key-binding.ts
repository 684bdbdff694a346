/** What is known of the key that signed: claims and findings about who says that a TPM holds it. */
import { createHash } from 'node:crypto'
import { toHex } from '#protocol/encoding'
import type { Claims, Finding } from '../../evidence/verdict.ts'
import type { ParsedCertificate } from '../../x509/certificate.ts'
import type { PathProblem, PathProblemCode } from '../../x509/path.ts'
import { isSoftwareTpm, parseTpmIdentity } from '../parse/tpm-identity.ts'
import type { AkBinding } from '../verify/ak-certificate.ts'
import type { Endorsement } from '../verify/ek-certificate.ts'

export interface BindingAppraisal {
  readonly claims: Claims
  readonly findings: readonly Finding[]
}

const SUBJECT_ALT_NAME = '2.5.29.17'

/** Problems that only say what is not known; the others disprove. */
const UNPROVEN: readonly PathProblemCode[] = ['issuer_missing', 'untrusted', 'too_deep', 'crl_missing']

/** @param endorsements certificates of endorsement keys that came with the evidence */
export function describeBinding(binding: AkBinding, endorsements: readonly Endorsement[]): BindingAppraisal {
  const [endorsement] = endorsements
  const emulated = isEmulated([
    ...(binding.certificate === undefined ? [] : [binding.certificate]),
    ...endorsements.map(({ certificate }) => certificate),
  ])
  const claims: Claims = {
    ak_bound: binding.bound,
    ...(binding.certificate !== undefined && {
      ak_certificate: fingerprint(binding.certificate),
      ak_issuer: binding.certificate.x509.issuer,
    }),
    ...(endorsement !== undefined && {
      ek_certificate: fingerprint(endorsement.certificate),
      ek_trusted: endorsement.problems.length === 0,
    }),
    ...(emulated !== undefined && { emulated }),
  }
  const findings = [
    ...(binding.bound ? revocationFindings(binding) : findingsOf(binding, endorsements.length > 0)),
    ...endorsements.flatMap(endorsementFindings),
    ...(emulated === true ? [emulation()] : []),
  ]
  return { claims, findings }
}

/** An endorsement that nobody trusts binds nothing, which `ak_unbound` says; one that is disproven was made up or withdrawn. */
function endorsementFindings({ problems }: Endorsement): Finding[] {
  return problems
    .filter(({ code }) => !UNPROVEN.includes(code))
    .map((problem) =>
      disproven(problem, { code: `ek_certificate_${problem.code}`, what: 'the certificate of the endorsement key' }),
    )
}

/** Undefined when no certificate says what TPM it is of. */
function isEmulated(certificates: readonly ParsedCertificate[]): boolean | undefined {
  const identities = certificates.flatMap((certificate) => {
    const names = certificate.extension(SUBJECT_ALT_NAME)
    return names === undefined ? [] : [parseTpmIdentity(names)]
  })
  const known = identities.filter(({ model }) => model !== undefined)
  return known.length === 0 ? undefined : known.some(isSoftwareTpm)
}

function emulation(): Finding {
  return {
    severity: 'warning',
    code: 'emulated',
    message: 'the TPM is a program: whoever runs it can make it say anything',
    expected: 'a TPM of hardware, or one that hardware vouches for',
    found: 'a certificate of a software TPM',
    remedy: 'Permit it by policy (emulated: true) only for tests.',
  }
}

/** Makers that say where their revocation lists are expect them to be looked at. */
function revocationFindings({ path, unlisted }: AkBinding & { readonly bound: true }): Finding[] {
  if (path.length === 0 || unlisted.length === 0) return []
  return unlisted.map((certificate) => ({
    severity: 'warning',
    code: 'unchecked_crl',
    message: `no revocation list for ${JSON.stringify(certificate.x509.subject || certificate.serial)} is known`,
    remedy: 'Add the list that the certificate names under its CRL distribution points to the collateral.',
  }))
}

function findingsOf(binding: AkBinding & { readonly bound: false }, endorsed: boolean): Finding[] {
  if (binding.certificate === undefined) {
    return [
      unbound(
        endorsed
          ? 'the evidence names an endorsement key, but a file cannot show that its TPM holds the attestation key'
          : 'nothing shows that a TPM holds the attestation key',
      ),
    ]
  }
  if ('unsuitable' in binding) {
    return [unbound(`the certificate of the key is not one of an attestation key: ${binding.unsuitable}`)]
  }
  return binding.problems.map((problem) => findingOf(problem))
}

function findingOf(problem: PathProblem): Finding {
  if (UNPROVEN.includes(problem.code)) {
    return unbound(`the certificate of the attestation key leads to no trusted CA: ${problem.message}`)
  }
  return disproven(problem, { code: `ak_certificate_${problem.code}`, what: 'the certificate of the attestation key' })
}

function disproven(problem: PathProblem, of: { readonly code: string; readonly what: string }): Finding {
  return {
    severity: 'contraindicated',
    code: of.code,
    message: `${of.what}: ${problem.message}`,
    ...(problem.expected !== undefined && { expected: problem.expected }),
    ...(problem.found !== undefined && { found: problem.found }),
    remedy: 'Have the key certified anew, or check the time that is judged at.',
  }
}

function unbound(message: string): Finding {
  return {
    severity: 'warning',
    code: 'ak_unbound',
    message,
    remedy:
      'Add the certificate of the attestation key and its CAs, name the root in the policy’s anchors, or attest to a live verifier.',
  }
}

function fingerprint({ der }: ParsedCertificate): string {
  return toHex(createHash('sha256').update(der).digest())
}
