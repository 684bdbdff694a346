/**
 * Does AMD stand behind an endorsement key? Its certificate must lead by the key's own authority (ASK for VCEKs, ASVK for
 * VLEKs) to a root key of AMD, or one that the tenant opted in to (AMD 57230, chapter 2).
 */
import { createHash } from 'node:crypto'
import { toHex } from '#protocol/encoding'
import type { ParsedCertificate } from '../../x509/certificate.ts'
import { type ParsedCrl, verifyCrl } from '../../x509/crl.ts'
import { nameAttribute } from '../../x509/name.ts'
import { describe, type PathProblem, type PathResult, pinnedAnchors, verifyPath } from '../../x509/path.ts'
import { SIGNATURE_OID } from '../../x509/signature.ts'
import { type ProductLine, productOfName } from '../product.ts'
import { type AmdAuthorities, amdAuthorities } from './amd-authorities.ts'

export type VekKind = 'vcek' | 'vlek'

export interface VekChainRequest {
  readonly vek: ParsedCertificate
  readonly kind: VekKind
  /** May be authorities; not trusted. */
  readonly certificates: readonly ParsedCertificate[]
  readonly crls: readonly ParsedCrl[]
  /** Roots besides AMD's. */
  readonly anchors: readonly ParsedCertificate[]
  readonly at: Date
}

export interface VekChain {
  /** Of the root; undefined when the path did not reach one, or the root does not say. */
  readonly product: ProductLine | undefined
  /** Empty: the chain holds. */
  readonly problems: readonly PathProblem[]
}

const COMMON_NAME = '2.5.4.3'
/** Endorsement key, its authority, the root. */
const CHAIN_LENGTH = 3
const ALGORITHMS: ReadonlySet<string> = new Set([SIGNATURE_OID.rsaPss])

export function verifyVekChain(request: VekChainRequest): VekChain {
  const { vek, kind, certificates, crls, at } = request
  const authorities = Object.values(amdAuthorities())
  const anchors = [...authorities.map(({ ark }) => ark), ...reissued(certificates), ...request.anchors]
  const candidates = [...authorities.flatMap(({ ask, asvk }) => [ask, asvk]), ...certificates]
  const options = { maxDepth: CHAIN_LENGTH, algorithms: ALGORITHMS, requireCrl: 'intermediates' } as const
  const result = verifyPath({ leaf: vek, candidates, anchors, at, crls, ...options })
  const shape = shapeProblem(result, kind)
  const root = result.path[CHAIN_LENGTH - 1]
  return {
    product: root === undefined ? undefined : productOfRoot(root),
    problems: [...result.problems, ...(shape ?? []), ...revokedByRoot(vek, root, crls)],
  }
}

/** Certificates of AMD's root keys other than those known here: AMD may renew them. */
function reissued(certificates: readonly ParsedCertificate[]): ParsedCertificate[] {
  return pinnedAnchors(certificates, rootPins())
}

let pins: ReadonlySet<string> | undefined

function rootPins(): ReadonlySet<string> {
  pins ??= new Set(Object.values(amdAuthorities()).map(({ ark }) => keyFingerprint(ark)))
  return pins
}

function productOfRoot(root: ParsedCertificate): ProductLine | undefined {
  const fingerprint = keyFingerprint(root)
  const known = Object.entries(amdAuthorities()) as [ProductLine, AmdAuthorities][]
  const pinned = known.find(([, { ark }]) => keyFingerprint(ark) === fingerprint)
  if (pinned !== undefined) return pinned[0]
  const [, name = ''] = /^ARK-(.*)$/.exec(nameAttribute(root.subject, COMMON_NAME) ?? '') ?? []
  return productOfName(name)
}

/** What AMD's chains have in common beyond what makes a path: their length, their algorithm, an authority per kind of key. */
function shapeProblem({ path, problems }: PathResult, kind: VekKind): PathProblem[] | undefined {
  const [vek, authority] = path
  if (vek === undefined || problems.some(({ code }) => NO_PATH.has(code))) return undefined
  if (authority === undefined || path.length !== CHAIN_LENGTH) {
    const message = `${describe(vek)} was not issued by an authority below a root`
    return [{ code: 'issuer_unfit', message, certificate: vek, found: `a chain of ${path.length} certificates` }]
  }
  const weak = path.find(({ algorithm: { scheme } }) => scheme?.kind !== 'rsa-pss' || scheme.hash !== 'sha384')
  if (weak !== undefined) {
    const message = `${describe(weak)} is not signed with RSA-PSS and SHA-384`
    return [{ code: 'weak_algorithm', message, certificate: weak, expected: 'RSA-PSS, SHA-384, salt of 48 bytes' }]
  }
  const name = nameAttribute(authority.subject, COMMON_NAME) ?? ''
  if (name.startsWith('SEV-VLEK') === (kind === 'vlek')) return undefined
  const message = `${describe(vek)} was issued by the authority for another kind of key`
  const expected = kind === 'vlek' ? 'an authority SEV-VLEK-…' : 'an authority SEV-…'
  return [{ code: 'issuer_unfit', message, certificate: authority, expected, found: name }]
}

const NO_PATH: ReadonlySet<PathProblem['code']> = new Set([
  'issuer_missing',
  'untrusted',
  'bad_signature',
  'issuer_unfit',
  'weak_algorithm',
  'too_deep',
])

/**
 * AMD's only list is the root's. By RFC 5280 it speaks of what the root issued; a list that names the number of an
 * endorsement key can mean nothing else than that key, so it is taken at its word.
 */
function revokedByRoot(
  vek: ParsedCertificate,
  root: ParsedCertificate | undefined,
  crls: readonly ParsedCrl[],
): PathProblem[] {
  if (root === undefined) return []
  const entry = crls
    .filter((crl) => crl.revoked.has(vek.serial) && verifyCrl(crl, root))
    .map((crl) => crl.revoked.get(vek.serial))[0]
  if (entry === undefined) return []
  const found = `revoked ${entry.date.toISOString()}`
  return [{ code: 'revoked', message: `${describe(vek)} was revoked by the root’s list`, certificate: vek, found }]
}

function keyFingerprint({ publicKeyInfo }: ParsedCertificate): string {
  return toHex(createHash('sha256').update(publicKeyInfo).digest())
}
