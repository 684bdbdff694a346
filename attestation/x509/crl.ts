/** Certificate revocation lists (RFC 5280 section 5), read strictly and verified; what they mean for a chain is `path.ts`. */

import {
  DER_TAG,
  type DerValue,
  readBoolean,
  readByteString,
  readDer,
  readInteger,
  readSingleDer,
  readTime,
} from '#protocol/der'
import { equalBytes } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { type ParsedCertificate, readSerial } from './certificate.ts'
import { type Extension, readExtensions } from './extensions.ts'
import { checkName, sameName } from './name.ts'
import { parsePem } from './pem.ts'
import { readSignatureAlgorithm, type SignatureAlgorithm, verifySignature } from './signature.ts'

export interface Revocation {
  readonly date: Date
  /** CRLReason (RFC 5280 5.3.1), undefined when none is given. */
  readonly reason: number | undefined
}

export interface ParsedCrl {
  readonly der: Uint8Array
  /** What is signed: the encoded TBSCertList. */
  readonly signed: Uint8Array
  readonly signature: Uint8Array
  readonly algorithm: SignatureAlgorithm
  /** DER of the Name. */
  readonly issuer: Uint8Array
  readonly thisUpdate: Date
  readonly nextUpdate: Date
  /** By serial number, spelt as in `ParsedCertificate.serial`. */
  readonly revoked: ReadonlyMap<string, Revocation>
  readonly extensions: readonly Extension[]
  /** Which certificates of the issuer the list is about (issuing distribution point). */
  readonly scope: 'all' | 'end-entities' | 'cas'
  /** Critical extensions, of the list or of an entry, that are not interpreted here: such a list proves nothing. */
  readonly unknownCritical: readonly string[]
}

const OID = { reason: '2.5.29.21', issuingDistributionPoint: '2.5.29.28' } as const
const EXTENSIONS_TAG = 0xa0
const MAX_CRL_BYTES = 8 * 1024 * 1024
const MAX_REVOKED = 200_000
/** The fields of an IssuingDistributionPoint that are interpreted: distributionPoint, onlyContainsUserCerts, -CACerts. */
const IDP_TAG = { distributionPoint: 0xa0, endEntities: 0x81, cas: 0x82 } as const

/** DER, or PEM with one list. Throws `MalformedError` ERR_CRL, ERR_PEM, ERR_CERTIFICATE, ERR_SIGNATURE_ALGORITHM or ERR_DER. */
export function parseCrl(crl: Uint8Array | string): ParsedCrl {
  const der = typeof crl === 'string' ? onlyBlock(crl) : new Uint8Array(crl)
  if (der.length > MAX_CRL_BYTES) throw malformed(`revocation list of ${der.length} bytes`)
  const [tbs, outer, bits, ...more] = readDer(readSingleDer(der, DER_TAG.sequence).content)
  if (tbs?.tag !== DER_TAG.sequence || outer === undefined || bits === undefined || more.length > 0) {
    throw malformed('a revocation list has three parts')
  }
  const { innerAlgorithm, entryCritical, ...fields } = readFields(tbs)
  if (!equalBytes(innerAlgorithm, outer.encoded)) throw malformed('two different signature algorithms')
  const idp = fields.extensions.find(({ oid }) => oid === OID.issuingDistributionPoint)
  const scope = idp === undefined ? 'all' : readScope(idp.value)
  const unknown = fields.extensions.filter(({ critical, oid }) => critical && oid !== OID.issuingDistributionPoint)
  return {
    ...fields,
    der,
    signed: tbs.encoded,
    signature: readByteString(bits),
    algorithm: readSignatureAlgorithm(outer),
    scope: scope ?? 'all',
    unknownCritical: [
      ...new Set([
        ...unknown.map(({ oid }) => oid),
        ...(scope === undefined ? [OID.issuingDistributionPoint] : []),
        ...entryCritical,
      ]),
    ],
  }
}

/** Answers for the same two objects: one list is asked about for every certificate that it speaks of. */
const verified = new WeakMap<ParsedCrl, WeakMap<ParsedCertificate, boolean>>()

/** Was the list signed by this certificate's key, and may that key sign lists? Its times are not judged. */
export function verifyCrl(crl: ParsedCrl, issuer: ParsedCertificate): boolean {
  const known = verified.get(crl) ?? new WeakMap<ParsedCertificate, boolean>()
  verified.set(crl, known)
  const answer = known.get(issuer) ?? isSignedBy(crl, issuer)
  known.set(issuer, answer)
  return answer
}

function isSignedBy(crl: ParsedCrl, issuer: ParsedCertificate): boolean {
  if (!sameName(crl.issuer, issuer.subject)) return false
  if (issuer.keyUsage !== undefined && !issuer.keyUsage.has('cRLSign')) return false
  return verifySignature(crl.signed, crl.algorithm, crl.signature, issuer.publicKey)
}

type Fields = Pick<ParsedCrl, 'issuer' | 'thisUpdate' | 'nextUpdate' | 'revoked' | 'extensions'> & {
  readonly innerAlgorithm: Uint8Array
  readonly entryCritical: readonly string[]
}

function readFields(tbs: DerValue): Fields {
  const parts = readDer(tbs.content)
  const version = parts[0]?.tag === DER_TAG.integer ? parts.shift() : undefined
  if (version !== undefined && readInteger(version) !== 1n)
    throw malformed('a revocation list of version 1 or 2 is needed')
  const [algorithm, issuer, thisUpdate, nextUpdate, ...optional] = parts
  if (algorithm === undefined || issuer === undefined || thisUpdate === undefined || nextUpdate === undefined) {
    throw malformed('a field is missing (the time of the next list is one that RFC 5280 demands)')
  }
  checkName(issuer)
  const entries = optional[0]?.tag === DER_TAG.sequence ? optional.shift() : undefined
  const [extensions, ...more] = optional
  if (more.length > 0 || (extensions !== undefined && (extensions.tag !== EXTENSIONS_TAG || version === undefined))) {
    throw malformed('an unknown field, or extensions in a list of version 1')
  }
  return {
    innerAlgorithm: algorithm.encoded,
    issuer: issuer.encoded,
    thisUpdate: readTime(thisUpdate),
    nextUpdate: readTime(nextUpdate),
    ...readRevoked(entries),
    extensions: extensions === undefined ? [] : readExtensions(readSingleDer(extensions.content, DER_TAG.sequence)),
  }
}

function readRevoked(list: DerValue | undefined): Pick<Fields, 'revoked' | 'entryCritical'> {
  const revoked = new Map<string, Revocation>()
  const entryCritical = new Set<string>()
  const entries = list === undefined ? [] : readDer(list.content)
  if (entries.length > MAX_REVOKED) throw malformed(`${entries.length} revoked certificates`)
  for (const entry of entries) {
    const [serial, date, extensionList, ...more] = entry.tag === DER_TAG.sequence ? readDer(entry.content) : []
    if (serial === undefined || date === undefined || more.length > 0) {
      throw malformed('an entry names a serial number and a time')
    }
    const extensions = extensionList === undefined ? [] : readExtensions(extensionList)
    for (const { critical, oid } of extensions) if (critical && oid !== OID.reason) entryCritical.add(oid)
    const reason = extensions.find(({ oid }) => oid === OID.reason)?.value
    revoked.set(readSerial(serial), {
      date: readTime(date),
      reason: reason === undefined ? undefined : readReason(reason),
    })
  }
  return { revoked, entryCritical: [...entryCritical] }
}

function readReason(value: Uint8Array): number {
  const { content } = readSingleDer(value, DER_TAG.enumerated)
  const [reason, ...more] = content
  if (reason === undefined || more.length > 0 || reason > 10 || reason === 7)
    throw malformed('unknown reason of revocation')
  return reason
}

/** RFC 5280 5.2.5. Undefined: a list about something that is not interpreted here (delta, indirect, some reasons). */
function readScope(value: Uint8Array): ParsedCrl['scope'] | undefined {
  const fields = readDer(readSingleDer(value, DER_TAG.sequence).content)
  const known: readonly number[] = Object.values(IDP_TAG)
  if (fields.some(({ tag }) => !known.includes(tag))) return undefined
  const flag = (tag: number): boolean => {
    const field = fields.find((candidate) => candidate.tag === tag)
    return field !== undefined && readBoolean({ ...field, tag: DER_TAG.boolean })
  }
  if (flag(IDP_TAG.endEntities) && flag(IDP_TAG.cas)) return undefined
  return flag(IDP_TAG.endEntities) ? 'end-entities' : flag(IDP_TAG.cas) ? 'cas' : 'all'
}

function onlyBlock(text: string): Uint8Array {
  const [block, ...more] = parsePem(text)
  if (block?.label !== 'X509 CRL' || more.length > 0) throw malformed('one PEM block of X509 CRL is needed')
  return block.bytes
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_CRL', why)
}
