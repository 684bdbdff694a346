/**
 * A small certificate authority for one run or one small installation: an ECDSA P-256 root and server certificates.
 *
 * X.509 v3 (RFC 5280) is put together here because Node signs but does not build certificates, and `node-forge`, which
 * encodes the ASN.1, cannot sign with elliptic curves. The CA's key is handed to the caller, who keeps it or forgets it.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto'
import { isIP } from 'node:net'
import forge from 'node-forge'
import { UsageError } from '#protocol/errors'

const { asn1 } = forge
type Asn1 = forge.asn1.Asn1

export interface CertificateAuthority {
  readonly certificatePem: string
  readonly privateKeyPem: string
}

export interface ServerCertificate {
  /** Leaf only: the CA is what clients are given. */
  readonly certificatePem: string
  readonly privateKeyPem: string
}

const DAY_MS = 86_400_000
/** Certificates start a little early, for peers whose clock is behind. */
const BACKDATE_MS = 10 * 60_000

const OID = {
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  commonName: '2.5.4.3',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
} as const

/** A new root that may issue end-entity certificates only. @param options.validDays default 3650 */
export function createCa(options: { name?: string; now?: Date; validDays?: number } = {}): CertificateAuthority {
  const name = options.name ?? 'Caisson CA'
  const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = keys.publicKey.export({ type: 'spki', format: 'der' })
  const certificatePem = certificate({
    issuer: distinguishedName(name),
    subject: distinguishedName(name),
    spki,
    signingKeyPem: keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    validity: validity(options.now ?? new Date(), options.validDays ?? 3650),
    extensions: [
      extension(OID.basicConstraints, true, sequence([bool(true), integer(Uint8Array.of(0))])),
      extension(OID.keyUsage, true, bits(0x06, 1)), // keyCertSign, cRLSign
      extension(OID.subjectKeyIdentifier, false, octets(keyIdentifier(spki))),
    ],
  })
  return { certificatePem, privateKeyPem: keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() }
}

/**
 * A server certificate with a new P-256 key, valid for `names` (DNS) and `ips`.
 *
 * @param options.validDays default 397, what most clients accept at most
 * @throws UsageError ERR_CERTIFICATE_NAMES without any name, or when an `ips` entry is not an IP address
 */
export function issueServerCertificate(options: {
  ca: CertificateAuthority
  names: readonly string[]
  ips?: readonly string[]
  now?: Date
  validDays?: number
}): ServerCertificate {
  const ips = options.ips ?? []
  const first = options.names[0] ?? ips[0]
  if (first === undefined) throw new UsageError('ERR_CERTIFICATE_NAMES', 'a server certificate needs a name or an IP')
  const issuer = new X509Certificate(options.ca.certificatePem)
  const issuerFields = asn1.fromDer(forge.util.createBuffer(issuer.raw.toString('binary')))
  const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = keys.publicKey.export({ type: 'spki', format: 'der' })
  const issuerSpki = createPublicKey(options.ca.certificatePem).export({ type: 'spki', format: 'der' })
  const certificatePem = certificate({
    issuer: subjectOf(issuerFields),
    subject: distinguishedName(first),
    spki,
    signingKeyPem: options.ca.privateKeyPem,
    validity: validity(options.now ?? new Date(), options.validDays ?? 397),
    extensions: [
      extension(OID.basicConstraints, true, sequence([])),
      extension(OID.keyUsage, true, bits(0x80, 7)), // digitalSignature
      extension(OID.extendedKeyUsage, false, sequence([oid(OID.serverAuth)])),
      extension(OID.subjectAltName, false, sequence([...options.names.map(dnsName), ...ips.map(ipName)])),
      extension(OID.subjectKeyIdentifier, false, octets(keyIdentifier(spki))),
      extension(OID.authorityKeyIdentifier, false, sequence([context(0, keyIdentifier(issuerSpki))])),
    ],
  })
  return { certificatePem, privateKeyPem: keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() }
}

/** RFC 5280 section 4.1. */
function certificate(fields: {
  issuer: Asn1
  subject: Asn1
  spki: Uint8Array
  signingKeyPem: string
  validity: Asn1
  extensions: readonly Asn1[]
}): string {
  const algorithm = sequence([oid(OID.ecdsaWithSha256)])
  const serial = randomBytes(16)
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40 // positive, and no leading zero byte
  const toBeSigned = sequence([
    explicit(0, integer(Uint8Array.of(2))),
    integer(serial),
    algorithm,
    fields.issuer,
    fields.validity,
    fields.subject,
    asn1.fromDer(forge.util.createBuffer(binary(fields.spki))),
    explicit(3, sequence([...fields.extensions])),
  ])
  const signature = sign('sha256', Buffer.from(der(toBeSigned), 'binary'), createPrivateKey(fields.signingKeyPem))
  const whole = sequence([toBeSigned, algorithm, universal(asn1.Type.BITSTRING, `\0${binary(signature)}`)])
  const base64 = Buffer.from(der(whole), 'binary').toString('base64')
  return `-----BEGIN CERTIFICATE-----\n${(base64.match(/.{1,64}/g) ?? []).join('\n')}\n-----END CERTIFICATE-----\n`
}

/** The issuer's subject, byte for byte, from Certificate ::= SEQUENCE { tbs { [0], serial, alg, issuer, validity, subject … */
function subjectOf(issuer: Asn1): Asn1 {
  const tbs = children(issuer)[0]
  const subject = tbs === undefined ? undefined : children(tbs)[5]
  if (subject === undefined) throw new UsageError('ERR_CERTIFICATE_CA', 'the CA certificate is not an X.509 v3 one')
  return subject
}

function children(value: Asn1): readonly Asn1[] {
  return Array.isArray(value.value) ? value.value : []
}

function validity(now: Date, days: number): Asn1 {
  const from = new Date(now.getTime() - BACKDATE_MS)
  return sequence([time(from), time(new Date(now.getTime() + days * DAY_MS))])
}

/** RFC 5280 section 4.1.2.5: UTCTime through 2049, GeneralizedTime afterwards. */
function time(date: Date): Asn1 {
  return date.getUTCFullYear() < 2050
    ? universal(asn1.Type.UTCTIME, String(asn1.dateToUtcTime(date)))
    : universal(asn1.Type.GENERALIZEDTIME, String(asn1.dateToGeneralizedTime(date)))
}

function distinguishedName(commonName: string): Asn1 {
  const attribute = sequence([oid(OID.commonName), universal(asn1.Type.UTF8, forge.util.encodeUtf8(commonName))])
  return sequence([asn1.create(asn1.Class.UNIVERSAL, asn1.Type.SET, true, [attribute])])
}

function extension(id: string, critical: boolean, value: Asn1): Asn1 {
  const wrapped = universal(asn1.Type.OCTETSTRING, der(value))
  return sequence(critical ? [oid(id), bool(true), wrapped] : [oid(id), wrapped])
}

/** The BIT STRING of a P-256 key: 04, x, y, at the end of its SubjectPublicKeyInfo. */
const P256_POINT_BYTES = 65

/** RFC 5280 section 4.2.1.2, method 1: SHA-1 of the key bits as a name for the key, not as protection. */
function keyIdentifier(spki: Uint8Array): Uint8Array {
  return createHash('sha1').update(spki.subarray(-P256_POINT_BYTES)).digest()
}

function dnsName(name: string): Asn1 {
  return context(2, Buffer.from(name, 'ascii'))
}

/** RFC 5280 section 4.2.1.6: 4 or 16 bytes in network order. */
function ipName(ip: string): Asn1 {
  switch (isIP(ip)) {
    case 4:
      return context(7, Uint8Array.from(ip.split('.'), Number))
    case 6:
      return context(7, ipv6Bytes(ip))
    default:
      throw new UsageError('ERR_CERTIFICATE_NAMES', `${JSON.stringify(ip)} is not an IP address`)
  }
}

function ipv6Bytes(ip: string): Uint8Array {
  const plain = new URL(`http://[${ip}]/`).hostname.slice(1, -1) // one spelling, without embedded IPv4
  const [head = '', tail] = plain.split('::')
  const before = head === '' ? [] : head.split(':')
  const after = tail === undefined || tail === '' ? [] : tail.split(':')
  const groups = [...before, ...Array<string>(8 - before.length - after.length).fill('0'), ...after]
  return Uint8Array.from(groups.flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255]))
}

function sequence(values: Asn1[]): Asn1 {
  return asn1.create(asn1.Class.UNIVERSAL, asn1.Type.SEQUENCE, true, values)
}

function universal(type: number, value: string): Asn1 {
  return asn1.create(asn1.Class.UNIVERSAL, type, false, value)
}

function context(tag: number, value: Uint8Array): Asn1 {
  return asn1.create(asn1.Class.CONTEXT_SPECIFIC, tag, false, binary(value))
}

function explicit(tag: number, value: Asn1): Asn1 {
  return asn1.create(asn1.Class.CONTEXT_SPECIFIC, tag, true, [value])
}

function oid(id: string): Asn1 {
  return universal(asn1.Type.OID, asn1.oidToDer(id).getBytes())
}

function bool(value: boolean): Asn1 {
  return universal(asn1.Type.BOOLEAN, value ? '\xff' : '\0')
}

function integer(bytes: Uint8Array): Asn1 {
  return universal(asn1.Type.INTEGER, binary(bytes))
}

function octets(bytes: Uint8Array): Asn1 {
  return universal(asn1.Type.OCTETSTRING, binary(bytes))
}

/** A BIT STRING of one byte, `unused` low bits of which do not count. */
function bits(byte: number, unused: number): Asn1 {
  return universal(asn1.Type.BITSTRING, String.fromCharCode(unused, byte))
}

function der(value: Asn1): string {
  return asn1.toDer(value).getBytes()
}

function binary(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('binary')
}
