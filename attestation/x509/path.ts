/**
 * Is there a path from a certificate to an anchor, and does it hold at a given time? (RFC 5280 section 6, without policies
 * and name constraints: a critical extension for those ends the path, because it is not interpreted.)
 *
 * Nothing is thrown: what is wrong is told, so that callers can tell what is disproven from what is only not proven.
 */
import { createHash } from 'node:crypto'
import { toHex } from '#protocol/encoding'
import type { ParsedCertificate } from './certificate.ts'
import { type ParsedCrl, verifyCrl } from './crl.ts'
import { nameText, sameName } from './name.ts'
import { STRONG_ALGORITHMS, verifySignature } from './signature.ts'

export type PathProblemCode =
  /** Nobody with the issuer's name is known: a certificate is missing, nothing is disproven. */
  | 'issuer_missing'
  /** The path ends in a self-issued certificate that is not an anchor. */
  | 'untrusted'
  /** Somebody has the issuer's name, and the signature is not theirs. */
  | 'bad_signature'
  /** The issuer may not issue this: no CA, path length, key usage, unknown critical extension. */
  | 'issuer_unfit'
  | 'weak_algorithm'
  /** A critical extension of the leaf that nobody interprets. */
  | 'unknown_critical'
  | 'too_deep'
  | 'expired'
  | 'not_yet_valid'
  | 'revoked'
  | 'crl_missing'
  | 'crl_expired'
  | 'crl_not_yet_valid'
  /** A list of the issuer's name that its key did not sign, or that is not understood. */
  | 'crl_invalid'

export interface PathProblem {
  readonly code: PathProblemCode
  readonly message: string
  /** The certificate it is about; for lists, the one they should speak of. */
  readonly certificate: ParsedCertificate
  readonly expected?: string
  readonly found?: string
}

export interface PathRequest {
  readonly leaf: ParsedCertificate
  /** May stand between leaf and anchor. */
  readonly candidates: readonly ParsedCertificate[]
  /** Trusted by the caller, as these very certificates; `pinnedAnchors` finds those that are trusted by their key. */
  readonly anchors: readonly ParsedCertificate[]
  readonly at: Date
  readonly crls?: readonly ParsedCrl[]
  /**
   * Which certificates need a list of their issuer that is valid at `at`: `intermediates` are those between leaf and
   * anchor, `all` has the leaf as well. Lists that are there are judged in any case. Default: `none`.
   */
  readonly requireCrl?: 'none' | 'intermediates' | 'all'
  /** Certificates on the path, leaf and anchor included. Default 5. */
  readonly maxDepth?: number
  /** Object identifiers of signature algorithms. Default: SHA-2 with RSA and ECDSA. */
  readonly algorithms?: ReadonlySet<string>
}

export interface PathResult {
  /** Leaf first; ends at the anchor, or where no issuer was found. */
  readonly path: readonly ParsedCertificate[]
  /** Empty: the path holds. */
  readonly problems: readonly PathProblem[]
}

/** Signatures that one search checks, so that certificates that all claim to have issued each other cost little. */
const MAX_SIGNATURES = 64

export function verifyPath(request: PathRequest): PathResult {
  const search = new PathSearch(request)
  search.extend([request.leaf])
  if (search.best !== undefined) return search.best
  return { path: search.longest, problems: search.dead.length > 0 ? search.dead : [tooDeep(request.leaf)] }
}

class PathSearch {
  best: PathResult | undefined
  /** The furthest that any attempt came, and what ended it. */
  longest: readonly ParsedCertificate[] = []
  dead: readonly PathProblem[] = []
  readonly #request: PathRequest
  #signatures = 0

  constructor(request: PathRequest) {
    this.#request = request
  }

  /** Depth first; ends at the first path without problems. */
  extend(path: readonly ParsedCertificate[]): void {
    const { anchors, candidates, leaf, maxDepth = 5 } = this.#request
    const last = path.at(-1) ?? leaf
    if (anchors.some((anchor) => same(anchor, last))) {
      this.#complete(path)
      return
    }
    const named = distinct(
      [...anchors, ...candidates].filter((issuer) => sameName(issuer.subject, last.issuer)),
      path,
    )
    if (path.length >= maxDepth || named.length === 0) {
      this.#end(path, [named.length === 0 ? this.#unissued(last) : tooDeep(last)])
      return
    }
    const refusals: PathProblem[] = []
    for (const issuer of named) {
      const refusal = this.#refusal(issuer, last, path.length - 1)
      if (refusal !== undefined) refusals.push(refusal)
      else this.extend([...path, issuer])
      if (this.best?.problems.length === 0) return
    }
    if (refusals.length === named.length) this.#end(path, refusals.slice(0, 1))
  }

  #complete(path: readonly ParsedCertificate[]): void {
    const problems = judge(path, this.#request)
    if (this.best === undefined || problems.length < this.best.problems.length) this.best = { path, problems }
  }

  #end(path: readonly ParsedCertificate[], problems: readonly PathProblem[]): void {
    if (path.length <= this.longest.length) return
    this.longest = path
    this.dead = problems
  }

  #unissued(certificate: ParsedCertificate): PathProblem {
    if (sameName(certificate.subject, certificate.issuer)) {
      const message = `${describe(certificate)} is not a trusted root`
      return { code: 'untrusted', message, certificate, found: nameText(certificate.subject) }
    }
    const expected = nameText(certificate.issuer)
    return { code: 'issuer_missing', message: `no certificate of ${expected} is known`, certificate, expected }
  }

  /** @param below number of CA certificates between `issuer` and the leaf */
  #refusal(issuer: ParsedCertificate, certificate: ParsedCertificate, below: number): PathProblem | undefined {
    const { algorithms = STRONG_ALGORITHMS } = this.#request
    const unfit = issuerProblem(issuer, below)
    if (unfit !== undefined) {
      const message = `${describe(issuer)} may not issue ${describe(certificate)}: ${unfit}`
      return { code: 'issuer_unfit', message, certificate: issuer }
    }
    if (!algorithms.has(certificate.signatureAlgorithm)) {
      const message = `${describe(certificate)} is signed with an algorithm that is not accepted`
      const [expected, found] = [[...algorithms].join(', '), certificate.signatureAlgorithm]
      return { code: 'weak_algorithm', message, certificate, expected, found }
    }
    if (++this.#signatures > MAX_SIGNATURES) return tooDeep(certificate)
    if (verifySignature(certificate.signed, certificate.algorithm, certificate.signature, issuer.publicKey)) {
      return undefined
    }
    const message = `the signature of ${describe(certificate)} is not by ${describe(issuer)}`
    return { code: 'bad_signature', message, certificate }
  }
}

/** RFC 5280 6.1.4 (k) to (o). */
function issuerProblem(
  { basicConstraints, keyUsage, unknownCritical }: ParsedCertificate,
  below: number,
): string | undefined {
  if (basicConstraints?.ca !== true) return 'it is not a CA'
  const { pathLength } = basicConstraints
  if (pathLength !== undefined && below > pathLength) return `its path length is ${pathLength}`
  if (keyUsage !== undefined && !keyUsage.has('keyCertSign')) return 'its key usage lacks keyCertSign'
  if (unknownCritical.length > 0) return `it has the unknown critical extension ${unknownCritical.join(', ')}`
  return undefined
}

/** Times and revocation of a path whose signatures hold. */
function judge(path: readonly ParsedCertificate[], request: PathRequest): PathProblem[] {
  const { at, leaf } = request
  const problems: PathProblem[] = []
  if (leaf.unknownCritical.length > 0) {
    const found = leaf.unknownCritical.join(', ')
    const message = `${describe(leaf)} has an unknown critical extension`
    problems.push({ code: 'unknown_critical', message, certificate: leaf, found })
  }
  for (const [index, certificate] of path.entries()) {
    const late = at > certificate.notAfter
    if (late || at < certificate.notBefore) {
      const expected = `${certificate.notBefore.toISOString()} to ${certificate.notAfter.toISOString()}`
      const code = late ? 'expired' : 'not_yet_valid'
      const message = `${describe(certificate)} is ${late ? 'no longer' : 'not yet'} valid`
      problems.push({ code, message, certificate, expected, found: at.toISOString() })
    }
    const issuer = path[index + 1]
    if (issuer !== undefined) problems.push(...revocation({ certificate, issuer, leaf: index === 0, request }))
  }
  return problems
}

function revocation(link: {
  readonly certificate: ParsedCertificate
  readonly issuer: ParsedCertificate
  readonly leaf: boolean
  readonly request: PathRequest
}): PathProblem[] {
  const { certificate, issuer, leaf, request } = link
  const { at, crls = [], requireCrl = 'none' } = request
  const required = requireCrl === 'all' || (requireCrl === 'intermediates' && !leaf)
  const excluded = certificate.basicConstraints?.ca === true ? 'end-entities' : 'cas'
  const problem = (code: PathProblemCode, message: string, found?: string): PathProblem => ({
    code,
    message,
    certificate,
    expected: `a valid revocation list of ${nameText(issuer.subject)}`,
    ...(found === undefined ? {} : { found }),
  })
  const own = crls.filter((crl) => sameName(crl.issuer, issuer.subject) && crl.scope !== excluded)
  const genuine = own.filter((crl) => crl.unknownCritical.length === 0 && verifyCrl(crl, issuer))
  // A list that is too old still proves that the certificate was revoked; removeFromCRL (8) is for delta lists only.
  const entry = genuine.map((crl) => crl.revoked.get(certificate.serial)).find((found) => found !== undefined)
  if (entry !== undefined) {
    return [problem('revoked', `${describe(certificate)} was revoked`, `revoked ${entry.date.toISOString()}`)]
  }
  if (genuine.some((crl) => at >= crl.thisUpdate && at <= crl.nextUpdate)) return []
  const newest = genuine.toSorted((a, b) => b.nextUpdate.getTime() - a.nextUpdate.getTime())[0]
  if (newest !== undefined) {
    const code = at > newest.nextUpdate ? 'crl_expired' : 'crl_not_yet_valid'
    const found = `a list for ${newest.thisUpdate.toISOString()} to ${newest.nextUpdate.toISOString()}`
    return [problem(code, `the revocation list for ${describe(certificate)} is not for ${at.toISOString()}`, found)]
  }
  if (own.length > 0) {
    return [
      problem('crl_invalid', `the revocation list for ${describe(certificate)} is not genuine, or not understood`),
    ]
  }
  return required ? [problem('crl_missing', `no revocation list for ${describe(certificate)} is known`)] : []
}

/** Each certificate once, without those that are on the path. */
function distinct(certificates: readonly ParsedCertificate[], path: readonly ParsedCertificate[]): ParsedCertificate[] {
  const found: ParsedCertificate[] = []
  for (const certificate of certificates) {
    if (![...path, ...found].some((other) => same(other, certificate))) found.push(certificate)
  }
  return found
}

function same(a: ParsedCertificate, b: ParsedCertificate): boolean {
  return a === b || Buffer.compare(a.der, b.der) === 0
}

/**
 * Those certificates whose key is pinned and which that key signed: makers renew the certificate of a root and keep its
 * key. @param pins SHA-256 of SubjectPublicKeyInfos, lower-case hex
 */
export function pinnedAnchors(
  certificates: readonly ParsedCertificate[],
  pins: ReadonlySet<string>,
): ParsedCertificate[] {
  return certificates.filter(
    (certificate) =>
      pins.has(toHex(createHash('sha256').update(certificate.publicKeyInfo).digest())) &&
      verifySignature(certificate.signed, certificate.algorithm, certificate.signature, certificate.publicKey),
  )
}

function tooDeep(certificate: ParsedCertificate): PathProblem {
  return {
    code: 'too_deep',
    message: `the path from ${describe(certificate)} is too long, or too many exist`,
    certificate,
  }
}

/** For messages: subject and serial number. */
export function describe({ subject, serial }: ParsedCertificate): string {
  return `certificate ${JSON.stringify(nameText(subject))} (serial ${serial})`
}
