/** How problems of certificate chains become reasons. */
import type { Finding } from '../evidence/verdict.ts'
import type { PathProblem, PathProblemCode } from '../x509/path.ts'

type Rule = Pick<Finding, 'severity' | 'code' | 'remedy'>

const ASK_AMD = 'Fetch the certificate from AMD’s key distribution service.'
const UNTRUSTED: Rule = {
  severity: 'contraindicated',
  code: 'chain_untrusted',
  remedy: 'Only AMD’s keys are trusted; a test root is accepted when the policy names it under anchors.',
}

/**
 * AMD's authorities are all known here, so an issuer that is not found is not one of them. A list of revoked certificates
 * that is missing or not current leaves something unchecked; one that is not genuine is somebody's attempt.
 */
const RULES: Readonly<Record<PathProblemCode, Rule>> = {
  issuer_missing: UNTRUSTED,
  untrusted: UNTRUSTED,
  bad_signature: { severity: 'contraindicated', code: 'chain_signature', remedy: ASK_AMD },
  issuer_unfit: { severity: 'contraindicated', code: 'chain_issuer', remedy: ASK_AMD },
  weak_algorithm: { severity: 'contraindicated', code: 'chain_algorithm', remedy: ASK_AMD },
  unknown_critical: { severity: 'contraindicated', code: 'chain_extension', remedy: ASK_AMD },
  too_deep: { severity: 'contraindicated', code: 'chain_length', remedy: ASK_AMD },
  expired: {
    severity: 'contraindicated',
    code: 'certificate_expired',
    remedy: 'Judge at a time at which the certificate was valid (--at), or get a newer one.',
  },
  not_yet_valid: {
    severity: 'contraindicated',
    code: 'certificate_not_yet_valid',
    remedy: 'Check the clock, or judge at a time at which the certificate was valid (--at).',
  },
  revoked: { severity: 'contraindicated', code: 'certificate_revoked', remedy: 'Do not trust the platform.' },
  crl_missing: {
    severity: 'warning',
    code: 'unchecked_crl',
    remedy: 'Add the revocation list of the product’s root to the collateral (--collateral).',
  },
  crl_expired: {
    severity: 'warning',
    code: 'crl_expired',
    remedy: 'Fetch the revocation list anew, or judge at the time it is for (--at).',
  },
  crl_not_yet_valid: {
    severity: 'warning',
    code: 'crl_not_yet_valid',
    remedy: 'Check the clock, or judge at the time the list is for (--at).',
  },
  crl_invalid: {
    severity: 'contraindicated',
    code: 'crl_invalid',
    remedy: 'Ask where the revocation list comes from; fetch it from AMD’s key distribution service.',
  },
}

/** @param crl address of the revocation list, where the product is known */
export function pathFindings(problems: readonly PathProblem[], crl: string | undefined): Finding[] {
  return problems.map(({ code, message, expected, found }) => ({
    ...RULES[code],
    ...(crl === undefined || !NEEDS_LIST.has(code) ? {} : { remedy: `Add the list of ${crl} to the collateral.` }),
    message,
    ...(expected === undefined ? {} : { expected }),
    ...(found === undefined ? {} : { found }),
  }))
}

const NEEDS_LIST: ReadonlySet<PathProblemCode> = new Set(['crl_missing'])
