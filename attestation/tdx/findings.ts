/** How reasons of this TEE come to be: from problems of certificate paths, and merged where one cause shows twice. */
import type { Finding } from '../evidence/verdict.ts'
import type { PathProblem, PathProblemCode } from '../x509/path.ts'

const UNCHECKED: Readonly<Partial<Record<PathProblemCode, { code: string; remedy: string }>>> = {
  issuer_missing: {
    code: 'unchecked_chain',
    remedy: 'Add the certificates of the issuer to the collateral (--collateral).',
  },
  crl_missing: {
    code: 'unchecked_crl',
    remedy: 'Add the revocation lists of the Intel SGX Root CA and of the PCK CA to the collateral.',
  },
}

const DISPROVEN: Readonly<Record<Exclude<PathProblemCode, 'issuer_missing' | 'crl_missing'>, string>> = {
  untrusted: 'chain_untrusted',
  bad_signature: 'chain_signature',
  issuer_unfit: 'chain_issuer',
  weak_algorithm: 'chain_algorithm',
  unknown_critical: 'chain_extension',
  too_deep: 'chain_length',
  expired: 'certificate_expired',
  not_yet_valid: 'certificate_not_yet_valid',
  revoked: 'certificate_revoked',
  crl_expired: 'crl_expired',
  crl_not_yet_valid: 'crl_not_yet_valid',
  crl_invalid: 'crl_invalid',
}

const DISPROVEN_REMEDY: Readonly<Record<string, string>> = {
  chain_untrusted: 'Evidence of a test root is accepted when the policy names that root under anchors.',
  certificate_revoked: 'Do not trust the platform; ask its operator.',
  crl_expired: 'Fetch the revocation lists anew, or judge at the time they are for (--at).',
  crl_not_yet_valid: 'Check the clock, or judge at the time the lists are for (--at).',
  certificate_expired: 'Judge at a time at which the chain was valid (--at), or get evidence with a newer certificate.',
  certificate_not_yet_valid: 'Check the clock, or judge at a time at which the chain was valid (--at).',
}

export function pathFindings(problems: readonly PathProblem[]): Finding[] {
  return problems.map(({ code, message, expected, found }) => {
    const compared = { ...(expected === undefined ? {} : { expected }), ...(found === undefined ? {} : { found }) }
    if (code === 'issuer_missing' || code === 'crl_missing') {
      const unchecked = UNCHECKED[code] ?? { code, remedy: '' }
      return { severity: 'warning', ...unchecked, message, ...compared }
    }
    const name = DISPROVEN[code]
    const remedy = DISPROVEN_REMEDY[name] ?? 'Do not trust the evidence; ask where its certificates come from.'
    return { severity: 'contraindicated', code: name, message, ...compared, remedy }
  })
}

/** The same list may be missing for several paths: once is enough. */
export function distinctFindings(findings: readonly Finding[]): Finding[] {
  return [...new Map(findings.map((finding) => [`${finding.code} ${finding.message}`, finding])).values()]
}
