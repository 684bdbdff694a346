/**
 * A key for a certificate, and what the verifier answers to the request for it.
 *
 * Unlike the keys that are attested, this one is for programs of the workload, so it can be exported once: into a file in
 * guest memory.
 */
import { encodeCertificateRequest, type RequestKey } from '#protocol/certificate-request'
import { toBase64 } from '#protocol/encoding'
import { CaissonError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import { answerError, jsonOf } from './verifier-http.ts'

export interface PodKey extends RequestKey {
  /** PKCS #8. */
  readonly privateKeyPem: string
}

export interface PodCertificate {
  readonly certificatePem: string
  /** Every CA that issues such certificates, or will soon. */
  readonly caPem: string
  readonly expiresAt: Date
}

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256' } as const
const MAX_PEM = 256 * 1024
const CERTIFICATES = /^(?:-----BEGIN CERTIFICATE-----\n(?:[A-Za-z0-9+/=]{1,64}\n)+-----END CERTIFICATE-----\n)+$/
const CODE = 'ERR_VERIFIER_ANSWER'

export async function createPodKey(): Promise<PodKey> {
  const { privateKey, publicKey } = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])
  const pkcs8 = new Uint8Array(await crypto.subtle.exportKey('pkcs8', privateKey))
  const lines = toBase64(pkcs8).match(/.{1,64}/g) ?? []
  pkcs8.fill(0)
  return {
    privateKeyPem: `-----BEGIN PRIVATE KEY-----\n${lines.join('\n')}\n-----END PRIVATE KEY-----\n`,
    publicKey: new Uint8Array(await crypto.subtle.exportKey('spki', publicKey)),
    sign: async (bytes) =>
      new Uint8Array(await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, privateKey, new Uint8Array(bytes))),
  }
}

/** DER of the request for a certificate with these DNS names. */
export async function requestFor(key: PodKey, names: readonly string[]): Promise<Uint8Array> {
  return await encodeCertificateRequest(key, names)
}

/** @param body of the answer, opened. @throws MalformedError ERR_VERIFIER_ANSWER */
export function parsePodCertificate(body: Uint8Array): PodCertificate {
  const value = jsonOf(body)
  try {
    const fields = new JsonFields(value, 'certificate', CODE)
    fields.only(['certificate', 'ca-certificates', 'expires-at'])
    const expiresAt = new Date(fields.string('expires-at', 32))
    if (!Number.isFinite(expiresAt.getTime())) throw fields.error('expires-at', 'not a time')
    return { certificatePem: pem(fields, 'certificate'), caPem: pem(fields, 'ca-certificates'), expiresAt }
  } catch (cause) {
    if (!(cause instanceof CaissonError)) throw cause
    throw answerError('a certificate that cannot be read', cause)
  }
}

function pem(fields: JsonFields, name: string): string {
  const text = fields.string(name, MAX_PEM)
  if (!CERTIFICATES.test(text)) throw fields.error(name, 'not certificates in PEM')
  return text
}
