/**
 * Is an answer what was asked for, genuine and current? Only then it is kept: whoever answers in a maker's place, or sends
 * an old list again, can at most withhold something.
 */
import { UnverifiedError } from '#protocol/errors'
import { type Collateral, type CollateralFile, readCollateral } from '../evidence/collateral.ts'
import { amdAuthorities } from '../snp/verify/amd-authorities.ts'
import { INTEL_SGX_ROOT } from '../tdx/intel-root.ts'
import { parseIntelDocuments, type SignedDocument } from '../tdx/parse/collateral.ts'
import { type Dated, DocumentVerifier } from '../tdx/verify/signed-documents.ts'
import type { ParsedCertificate } from '../x509/certificate.ts'
import { type ParsedCrl, verifyCrl } from '../x509/crl.ts'
import { sameName } from '../x509/name.ts'
import { verifyPath } from '../x509/path.ts'

export interface ValidAnswer {
  readonly collateral: Collateral
  /** Of the newest list or document in it; undefined for certificates. */
  readonly issuedAt: Date | undefined
  /** When it is time to ask again. */
  readonly staleAt: Date
}

export interface ValidationContext {
  /** Roots besides those of AMD and Intel: of the operator. */
  readonly anchors: readonly ParsedCertificate[]
  readonly at: Date
}

type Wanted = 'certificates' | 'crls' | 'tcbInfos' | 'identities'

const DAY_MS = 24 * 60 * 60 * 1000
/** Lists and TCB information change without notice. */
const REFRESH_MS = DAY_MS
/** Certificates do not. */
const REFRESH_CERTIFICATES_MS = 30 * DAY_MS
/** Before a list ends, so that an outage of some hours harms nobody. */
const EARLY_MS = DAY_MS / 4
const CODE = 'ERR_COLLATERAL_ANSWER'

/**
 * Throws `UnverifiedError` ERR_COLLATERAL_ANSWER, and what unreadable lists and documents are refused with.
 *
 * @param url address of the maker's own service
 */
export function validateAnswer(url: string, files: readonly CollateralFile[], context: ValidationContext): ValidAnswer {
  const collateral = readCollateral(files)
  const documents = parseIntelDocuments(collateral.documents)
  const wanted = wantedAt(url)
  const found = { ...collateral, ...documents }[wanted]
  if (found.length === 0) throw refused(url, `no ${wanted} in it`)
  const fmspc = new URL(url).searchParams.get('fmspc')
  const other = documents.tcbInfos.find(({ content }) => fmspc === null || content.fmspc.toLowerCase() !== fmspc)
  if (other !== undefined) throw refused(url, 'TCB information of another platform')
  const judge = new Judge(url, collateral, context)
  for (const certificate of collateral.certificates) judge.certificate(certificate)
  for (const crl of collateral.crls) judge.crl(crl)
  for (const document of [...documents.tcbInfos, ...documents.identities]) judge.document(document)
  return { collateral, ...timesOf(wanted, [...collateral.crls, ...dated(documents)], context.at) }
}

class Judge {
  readonly #url: string
  readonly #anchors: readonly ParsedCertificate[]
  readonly #candidates: readonly ParsedCertificate[]
  readonly #documents: DocumentVerifier
  readonly #at: Date

  constructor(url: string, { certificates }: Collateral, { anchors, at }: ValidationContext) {
    this.#url = url
    this.#at = at
    const amd = Object.values(amdAuthorities())
    this.#anchors = [INTEL_SGX_ROOT, ...amd.map(({ ark }) => ark), ...anchors]
    this.#candidates = [...certificates, ...amd.flatMap(({ ask, asvk }) => [ask, asvk]), ...anchors]
    this.#documents = new DocumentVerifier({ certificates, crls: [], anchors: this.#anchors, at })
  }

  certificate(leaf: ParsedCertificate): void {
    const [problem] = this.#problems(leaf)
    if (problem !== undefined) throw refused(this.#url, problem)
  }

  crl(crl: ParsedCrl): void {
    const issuer = [...this.#anchors, ...this.#candidates].find(
      (each) => sameName(each.subject, crl.issuer) && verifyCrl(crl, each) && this.#problems(each).length === 0,
    )
    if (issuer === undefined) throw refused(this.#url, 'a revocation list that nobody trusted signed')
    if (this.#at < crl.thisUpdate || this.#at > crl.nextUpdate)
      throw refused(this.#url, 'a revocation list of another time')
  }

  document(document: SignedDocument<Dated>): void {
    const { genuine } = this.#documents.verify(document, 'document', 'unchecked')
    if (!genuine) throw refused(this.#url, 'a document that Intel did not sign')
    const { issueDate, nextUpdate } = document.content
    if (this.#at < issueDate || this.#at > nextUpdate) throw refused(this.#url, 'a document of another time')
  }

  #problems(leaf: ParsedCertificate): string[] {
    const { problems } = verifyPath({ leaf, candidates: this.#candidates, anchors: this.#anchors, at: this.#at })
    return problems.map(({ message }) => message)
  }
}

function wantedAt(url: string): Wanted {
  const { pathname } = new URL(url)
  if (pathname.endsWith('/tcb')) return 'tcbInfos'
  if (pathname.endsWith('/identity')) return 'identities'
  return /\/(?:crl|pckcrl|IntelSGXRootCA\.der)$/.test(pathname) ? 'crls' : 'certificates'
}

interface Span {
  readonly issuedAt: Date
  readonly nextUpdate: Date
}

function dated({ tcbInfos, identities }: ReturnType<typeof parseIntelDocuments>): Span[] {
  return [...tcbInfos, ...identities].map(({ content: { issueDate, nextUpdate } }) => ({
    issuedAt: issueDate,
    nextUpdate,
  }))
}

function timesOf(
  wanted: Wanted,
  items: readonly (ParsedCrl | Span)[],
  at: Date,
): Pick<ValidAnswer, 'issuedAt' | 'staleAt'> {
  if (wanted === 'certificates')
    return { issuedAt: undefined, staleAt: new Date(at.getTime() + REFRESH_CERTIFICATES_MS) }
  const issued = items.map((item) => ('thisUpdate' in item ? item.thisUpdate : item.issuedAt).getTime())
  const next = Math.min(...items.map(({ nextUpdate }) => nextUpdate.getTime())) - EARLY_MS
  return { issuedAt: new Date(Math.max(...issued)), staleAt: new Date(Math.min(at.getTime() + REFRESH_MS, next)) }
}

function refused(url: string, why: string): UnverifiedError {
  return new UnverifiedError(CODE, `the answer of ${url} is not kept: ${why}`, {
    hint: 'Ask who answers there; fetch it from AMD or Intel.',
  })
}
