/** Which of the certificates at hand is the one of the key that signed a report? */
import { equalBytes } from '#protocol/encoding'
import { CaissonError, type MalformedError } from '#protocol/errors'
import type { ParsedCertificate } from '../../x509/certificate.ts'
import { fingerprint } from '../../x509/fingerprint.ts'
import type { SnpReport } from '../parse/report.ts'
import { hasVekExtensions, parseVekExtensions, type VekExtensions } from '../parse/vek-extensions.ts'
import { verifyReportSignature } from './report-signature.ts'
import { vekKind } from './vek-binding.ts'
import type { VekKind } from './vek-chain.ts'

export interface EndorsementKey {
  readonly certificate: ParsedCertificate
  readonly kind: VekKind
  /** An error when they are not those of an endorsement key. */
  readonly extensions: VekExtensions | MalformedError
  /** Did this key sign the report? */
  readonly signed: boolean
}

/** A folder may hold the certificates of a whole fleet; signatures are checked for those that fit best. */
const MAX_SIGNATURES = 8

/**
 * The certificate whose key signed the report; if none did, the one that should have: same kind, chip and TCB. Of several for
 * one key, one that is valid at that time. Undefined when there is no certificate of an endorsement key.
 */
export function findEndorsementKey(
  report: SnpReport,
  certificates: readonly ParsedCertificate[],
  at: Date,
): EndorsementKey | undefined {
  const candidates = certificates
    .flatMap((certificate) => {
      const { named, extensions } = statementOf(certificate)
      const kind = named ?? (extensions === undefined ? undefined : kindOf(report))
      return kind === undefined || extensions === undefined ? [] : [{ certificate, kind, extensions }]
    })
    .map((candidate) => ({ ...candidate, fit: fitOf(report, candidate) + validity(candidate.certificate, at) }))
    .toSorted((a, b) => b.fit - a.fit)
  for (const { fit: _fit, ...candidate } of candidates.slice(0, MAX_SIGNATURES)) {
    if (isSignedBy(report, candidate.certificate)) return { ...candidate, signed: true }
  }
  const [best] = candidates
  if (best === undefined) return undefined
  const { fit: _fit, ...candidate } = best
  return { ...candidate, signed: false }
}

/** One report is judged several times, with more collateral and by each policy: whose signature it has does not change. */
const signers = new WeakMap<SnpReport, Map<string, boolean>>()

function isSignedBy(report: SnpReport, certificate: ParsedCertificate): boolean {
  const known = signers.get(report) ?? new Map<string, boolean>()
  signers.set(report, known)
  const name = fingerprint(certificate)
  const signed = known.get(name) ?? verifyReportSignature(report, certificate.publicKey)
  known.set(name, signed)
  return signed
}

function kindOf(report: SnpReport): VekKind {
  return report.signingKey === 'vlek' ? 'vlek' : 'vcek'
}

interface Statement {
  /** Kind of key by the certificate's name. */
  readonly named: VekKind | undefined
  /** Undefined: it has neither the name nor the extensions of an endorsement key's certificate. */
  readonly extensions: VekExtensions | MalformedError | undefined
}

/** What a certificate says does not change, and a verifier asks the same ones for every report. */
const statements = new WeakMap<ParsedCertificate, Statement>()

function statementOf(certificate: ParsedCertificate): Statement {
  const known = statements.get(certificate)
  if (known !== undefined) return known
  const named = vekKind(certificate)
  const isVek = named !== undefined || hasVekExtensions(certificate)
  const statement = { named, extensions: isVek ? readExtensions(certificate) : undefined }
  statements.set(certificate, statement)
  return statement
}

function readExtensions(certificate: ParsedCertificate): VekExtensions | MalformedError {
  try {
    return parseVekExtensions(certificate)
  } catch (error) {
    if (error instanceof CaissonError) return error
    throw error
  }
}

function fitOf(report: SnpReport, { kind, extensions }: Omit<EndorsementKey, 'certificate' | 'signed'>): number {
  if (extensions instanceof Error) return 0
  const { hwid, tcb } = extensions
  const sameChip = hwid !== undefined && equalBytes(report.chipId.subarray(0, hwid.length), hwid)
  return 4 * Number(sameChip) + 2 * Number(equalBytes(tcb, report.reportedTcb)) + Number(kind === report.signingKey)
}

/** Less than any other difference: AMD certifies the same key again before a certificate expires. */
function validity({ notBefore, notAfter }: ParsedCertificate, at: Date): number {
  return at >= notBefore && at <= notAfter ? 0.5 : 0
}
