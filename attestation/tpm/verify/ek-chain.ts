/**
 * Is this the certificate of an endorsement key whose TPM the tenant trusts? (TCG EK Credential Profile 2.5, section 3;
 * RFC 5280 section 6, as far as such chains need it.)
 *
 * Revocation is not looked up: TPM makers publish none for EKs, and tenants list the fingerprints they allow or deny.
 */
import { createHash, type KeyObject } from 'node:crypto'
import { toHex } from '#protocol/encoding'
import { UnverifiedError } from '#protocol/errors'
import { type ParsedCertificate, parseCertificate } from '../../x509/certificate.ts'
import { fingerprint } from '../../x509/fingerprint.ts'
import { EK_TEMPLATES, type EkTemplate } from '../ek-template.ts'
import { COORDINATE_BYTES } from '../parse/algorithms.ts'
import type { PublicArea } from '../parse/public-area.ts'
import { isSoftwareTpm, parseTpmIdentity } from '../parse/tpm-identity.ts'

/** tcg-kp-EKCertificate */
const EK_CERTIFICATE_USAGE = '2.23.133.8.1'
const MAX_CHAIN = 5
const MIN_RSA_BITS = 2048

/** SHA-2 with RSA (PKCS#1 and PSS) and ECDSA. */
const SIGNATURE_ALGORITHMS: ReadonlySet<string> = new Set([
  '1.2.840.113549.1.1.10',
  '1.2.840.113549.1.1.11',
  '1.2.840.113549.1.1.12',
  '1.2.840.113549.1.1.13',
  '1.2.840.10045.4.3.2',
  '1.2.840.10045.4.3.3',
  '1.2.840.10045.4.3.4',
])

declare const verified: unique symbol

/** An endorsement key that passed `verifyEkChain`; there is no other way to obtain one. */
export interface VerifiedEk {
  readonly [verified]: true
  readonly template: EkTemplate
  /** Built from template and certificate, never taken from the peer. */
  readonly publicArea: PublicArea
  readonly publicKey: KeyObject
  /** SHA-256 of the certificate's DER, hex. */
  readonly fingerprint: string
  /** SHA-256 of the key's SubjectPublicKeyInfo, hex: the same when the TPM's certificate is renewed. */
  readonly keyFingerprint: string
  readonly subject: string
  /** Fingerprint of the pinned certificate that vouches for it. */
  readonly anchor: string
  /** What the certificate says of the TPM: whether it is a program. Undefined when it does not say. */
  readonly emulated: boolean | undefined
  /** When all certificates of the path are valid, these moments included. */
  readonly validFrom: Date
  readonly validTo: Date
}

export interface EkChainInput {
  /** DER, from the guest. */
  readonly certificate: Uint8Array
  /** PEM, pinned by the tenant: roots, or intermediates to trust only part of a CA. */
  readonly roots: readonly string[]
  /** PEM, from the verifier's own store. */
  readonly intermediates: readonly string[]
  readonly at: Date
}

/**
 * Throws `UnverifiedError` ERR_EK_UNTRUSTED (no path to a pinned CA), ERR_EK_EXPIRED (a path, but not at this time) or
 * ERR_EK_CERTIFICATE (a certificate, but not of an EK that is known here), `MalformedError` ERR_CERTIFICATE, ERR_DER or
 * ERR_TPM_IDENTITY.
 */
export function verifyEkChain(input: EkChainInput): VerifiedEk {
  const leaf = parseCertificate(input.certificate)
  checkLeaf(leaf)
  const chain = findChain(leaf, {
    anchors: input.roots.map(parseCertificate),
    intermediates: input.intermediates.map(parseCertificate),
  })
  for (const certificate of chain) checkValidity(certificate, input.at)
  const publicArea = ekPublicArea(leaf)
  return {
    ...publicArea,
    publicKey: leaf.publicKey,
    fingerprint: sha256(leaf.der),
    keyFingerprint: sha256(new Uint8Array(leaf.publicKey.export({ format: 'der', type: 'spki' }))),
    subject: leaf.x509.subject,
    anchor: fingerprint(chain.at(-1) ?? leaf),
    emulated: isEmulated(leaf),
    validFrom: new Date(Math.max(...chain.map(({ x509 }) => x509.validFromDate.getTime()))),
    validTo: new Date(Math.min(...chain.map(({ x509 }) => x509.validToDate.getTime()))),
  } as VerifiedEk
}

const SUBJECT_ALT_NAME = '2.5.29.17'

function isEmulated(leaf: ParsedCertificate): boolean | undefined {
  const names = leaf.extension(SUBJECT_ALT_NAME)
  if (names === undefined) return undefined
  const identity = parseTpmIdentity(names)
  return identity.model === undefined ? undefined : isSoftwareTpm(identity)
}

interface Store {
  readonly anchors: readonly ParsedCertificate[]
  readonly intermediates: readonly ParsedCertificate[]
}

/** Leaf first, pinned certificate last. */
function findChain(leaf: ParsedCertificate, store: Store): ParsedCertificate[] {
  const chain = extend([leaf], store)
  if (chain !== undefined) return chain
  throw new UnverifiedError(
    'ERR_EK_UNTRUSTED',
    `${describe(leaf)} was not issued by a pinned CA: its issuer calls itself ${JSON.stringify(leaf.x509.issuer)}`,
    { hint: 'Pin the root of this TPM’s CA, and add its intermediates, only if you trust who runs that CA.' },
  )
}

function extend(chain: readonly ParsedCertificate[], store: Store): ParsedCertificate[] | undefined {
  const last = chain.at(-1)
  if (last === undefined || chain.length >= MAX_CHAIN) return undefined
  for (const anchor of store.anchors) {
    if (issued(anchor, last, chain.length - 1)) return [...chain, anchor]
  }
  for (const intermediate of store.intermediates) {
    if (chain.includes(intermediate) || !issued(intermediate, last, chain.length - 1)) continue
    const found = extend([...chain, intermediate], store)
    if (found !== undefined) return found
  }
  return undefined
}

/** @param below number of CA certificates between `issuer` and the leaf */
function issued(issuer: ParsedCertificate, certificate: ParsedCertificate, below: number): boolean {
  const { basicConstraints, keyUsage } = issuer
  // RFC 5280 6.1.4 (k), (m), (n): cA on every issuer, its path length, and keyCertSign where usages are stated.
  if (basicConstraints?.ca !== true) return false
  if (basicConstraints.pathLength !== undefined && below > basicConstraints.pathLength) return false
  if (keyUsage !== undefined && !keyUsage.has('keyCertSign')) return false
  if (issuer.unknownCritical.length > 0) return false
  if (!SIGNATURE_ALGORITHMS.has(certificate.signatureAlgorithm)) return false
  const { publicKey } = issuer
  if (publicKey.asymmetricKeyType === 'rsa' && (publicKey.asymmetricKeyDetails?.modulusLength ?? 0) < MIN_RSA_BITS) {
    return false
  }
  return certificate.x509.checkIssued(issuer.x509) && certificate.x509.verify(publicKey)
}

function checkLeaf(leaf: ParsedCertificate): void {
  const refuse = (why: string): never => {
    throw new UnverifiedError('ERR_EK_CERTIFICATE', `${describe(leaf)} is not the certificate of an EK: ${why}`)
  }
  if (leaf.basicConstraints?.ca === true) refuse('it is a CA')
  if (leaf.extendedKeyUsage?.includes(EK_CERTIFICATE_USAGE) !== true) {
    refuse(`its extended key usage lacks ${EK_CERTIFICATE_USAGE}`)
  }
  const wanted = leaf.publicKey.asymmetricKeyType === 'rsa' ? 'keyEncipherment' : 'keyAgreement'
  if (leaf.keyUsage?.has(wanted) !== true) refuse(`its key usage lacks ${wanted}`)
  if (leaf.unknownCritical.length > 0) refuse(`unknown critical extension ${leaf.unknownCritical.join(', ')}`)
}

function checkValidity({ x509 }: ParsedCertificate, at: Date): void {
  if (at >= x509.validFromDate && at <= x509.validToDate) return
  throw new UnverifiedError(
    'ERR_EK_EXPIRED',
    `${JSON.stringify(x509.subject)} is valid from ${x509.validFromDate.toISOString()} to ` +
      `${x509.validToDate.toISOString()}, not at ${at.toISOString()}`,
    { hint: 'Check the clock of the verifier’s machine before suspecting the certificate.' },
  )
}

/** The one public area that a key of this certificate can have in a TPM that follows the templates. */
function ekPublicArea(leaf: ParsedCertificate): { template: EkTemplate; publicArea: PublicArea } {
  const key = leaf.publicKey
  const jwk = key.export({ format: 'jwk' })
  if (jwk.kty === 'RSA' && jwk.e === 'AQAB' && key.asymmetricKeyDetails?.modulusLength === 2048) {
    const template = EK_TEMPLATES['rsa-2048']
    const { creation } = template
    if (creation.type === 'rsa') return { template, publicArea: { ...creation, modulus: base64Url(jwk.n, 256) } }
  }
  if (jwk.kty === 'EC' && (jwk.crv === 'P-256' || jwk.crv === 'P-384')) {
    const template = EK_TEMPLATES[jwk.crv === 'P-256' ? 'p-256' : 'p-384']
    const bytes = COORDINATE_BYTES[jwk.crv]
    const { creation } = template
    if (creation.type === 'ecc') {
      return { template, publicArea: { ...creation, x: base64Url(jwk.x, bytes), y: base64Url(jwk.y, bytes) } }
    }
  }
  throw new UnverifiedError(
    'ERR_EK_CERTIFICATE',
    `${describe(leaf)} has a key for which no template is known: ${String(key.asymmetricKeyType)}`,
    { hint: 'RSA-2048, ECC P-256 and ECC P-384 endorsement keys are known.' },
  )
}

/** Left-padded to `length`. */
function base64Url(text: string | undefined, length: number): Uint8Array {
  const bytes = Buffer.from(text ?? '', 'base64url')
  const padded = new Uint8Array(length)
  padded.set(bytes, length - bytes.length)
  return padded
}

function describe({ x509 }: ParsedCertificate): string {
  return `certificate ${JSON.stringify(x509.subject)} (serial ${x509.serialNumber})`
}

function sha256(bytes: Uint8Array): string {
  return toHex(createHash('sha256').update(bytes).digest())
}
