/** Whom a signing certificate names: by Fulcio (who logged in where), or by an authority of one's own. */
import type { CryptoProvider } from '#protocol/crypto-provider'
import { DeniedError, UnverifiedError } from '#protocol/errors'
import { type SigningKey, signingKeyOf } from './public-key.ts'
import { type Certificate, parseCertificate } from './x509/certificate.ts'
import { verifyChain } from './x509/chain.ts'
import { ascii, DER_TAG, readSingle } from './x509/der.ts'
import { parsePemCertificates } from './x509/pem.ts'

export interface PresentedCertificate {
  readonly leafPem: string
  /** PEM, leaf's issuer first and root last; "" where there is none. */
  readonly chainPem: string
}

export interface CertificateTrust {
  readonly roots: readonly Certificate[]
  readonly intermediates: readonly Certificate[]
  readonly at: Date
  readonly crypto: CryptoProvider
}

/** Fulcio's extensions: the issuer of the login, bare in the first, as UTF8String in the second. */
const ISSUER_V1 = '1.3.6.1.4.1.57264.1.1'
const ISSUER_V2 = '1.3.6.1.4.1.57264.1.8'

/** The single certificate that signed. Throws `UnverifiedError` ERR_IMAGE_CERTIFICATE or `MalformedError`. */
export function readLeaf({ leafPem }: PresentedCertificate, what: string): Certificate {
  const [der, ...more] = parsePemCertificates(leafPem, what)
  if (der === undefined || more.length > 0) throw refused(what, 'not exactly one signing certificate')
  return parseCertificate(der, what)
}

/** The key of a certificate that chains to a trusted root. Throws `UnverifiedError` ERR_IMAGE_CERTIFICATE. */
export function verifySigner(presented: PresentedCertificate, trust: CertificateTrust, what: string): SigningKey {
  const leaf = readLeaf(presented, what)
  // The last of the presented chain is its root, which counts only where the policy names it.
  const chain = presented.chainPem === '' ? [] : parsePemCertificates(presented.chainPem, `chain of ${what}`)
  const between = chain.slice(0, -1).map((der) => parseCertificate(der, `chain of ${what}`))
  verifyChain({ ...trust, leaf, intermediates: [...trust.intermediates, ...between] })
  return signingKeyOf(leaf.publicKey, what)
}

/** Throws `DeniedError` ERR_IMAGE_SIGNER unless Fulcio certified this login. */
export function requireFulcioIdentity(
  leaf: Certificate,
  wanted: { readonly oidcIssuer: string; readonly subjectEmail: string },
  what: string,
): void {
  const issuer = fulcioIssuer(leaf, what)
  if (issuer !== wanted.oidcIssuer) throw denied(what, 'oidcIssuer', wanted.oidcIssuer, issuer)
  if (!leaf.emails.includes(wanted.subjectEmail)) {
    throw denied(what, 'subjectEmail', wanted.subjectEmail, [...leaf.emails, ...leaf.uris].join(', '))
  }
}

/** Throws `DeniedError` ERR_IMAGE_SIGNER unless the certificate carries the names. */
export function requirePkiSubject(
  leaf: Certificate,
  wanted: { readonly subjectHostname: string | undefined; readonly subjectEmail: string | undefined },
  what: string,
): void {
  const { subjectEmail, subjectHostname } = wanted
  if (subjectEmail !== undefined && !leaf.emails.includes(subjectEmail)) {
    throw denied(what, 'subjectEmail', subjectEmail, leaf.emails.join(', '))
  }
  if (subjectHostname !== undefined && !leaf.dnsNames.some((name) => hostMatches(name, subjectHostname))) {
    throw denied(what, 'subjectHostname', subjectHostname, leaf.dnsNames.join(', '))
  }
}

/** The issuer of the login that Fulcio certified. Throws `UnverifiedError` ERR_IMAGE_CERTIFICATE. */
export function fulcioIssuer(leaf: Certificate, what: string): string {
  const [v1, v2] = [leaf.extensions.get(ISSUER_V1), leaf.extensions.get(ISSUER_V2)]
  const old = v1 === undefined ? undefined : ascii(v1.value)
  const current = v2 === undefined ? undefined : ascii(readSingle(v2.value, DER_TAG.utf8String).content)
  if (old !== undefined && current !== undefined && old !== current) {
    throw refused(what, 'the certificate names two issuers')
  }
  const issuer = current ?? old
  if (issuer === undefined) throw refused(what, 'the certificate names no issuer of a login')
  return issuer
}

/** RFC 6125 6.4: without case; a wildcard stands for the first label alone. */
function hostMatches(pattern: string, host: string): boolean {
  const [wanted, name] = [host.toLowerCase().replace(/\.$/, ''), pattern.toLowerCase()]
  if (!name.startsWith('*.')) return name === wanted
  const dot = wanted.indexOf('.')
  return dot > 0 && wanted.slice(dot) === name.slice(1)
}

function denied(what: string, member: string, allowed: string, found: string): DeniedError {
  return new DeniedError(
    'ERR_IMAGE_SIGNER',
    `${what}: signed by ${JSON.stringify(found)}, ${member} is ${JSON.stringify(allowed)}`,
    {
      field: member,
      allowed,
      asked: found,
      hint: 'Sign with the identity that the policy names, or name this one in the policy.',
    },
  )
}

function refused(what: string, why: string): UnverifiedError {
  return new UnverifiedError('ERR_IMAGE_CERTIFICATE', `${what}: ${why}`)
}
