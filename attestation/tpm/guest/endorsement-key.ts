/** The TPM's endorsement key and its certificate, found and checked against each other. */

import { DER_TAG, derLength, readDer, readSingleDer } from '#protocol/der'
import { concatBytes, equalBytes } from '#protocol/encoding'
import { UnavailableError, UnverifiedError } from '#protocol/errors'
import { EK_PREFERENCE, EK_TEMPLATES, type EkTemplate } from '../ek-template.ts'
import { type PublicArea, parsePublicArea } from '../parse/public-area.ts'
import { createPrimary, flushContext, readNvIndex } from './commands.ts'
import { type TpmDevice, TpmResponseError } from './device.ts'
import { RC_NO_SUCH_HANDLE } from './response-codes.ts'

export interface LoadedEk {
  readonly template: EkTemplate
  /** DER, without what a vendor may have padded it with. */
  readonly certificate: Uint8Array
  /** Transient object: the caller flushes it. */
  readonly handle: number
}

/**
 * Makes the EK of the first certificate found, elliptic curves preferred, and compares their keys.
 *
 * Throws `UnavailableError` ERR_TPM_NO_EK_CERTIFICATE, `UnverifiedError` ERR_TPM_EK_MISMATCH (certificate of another TPM,
 * or another template), `MalformedError` ERR_DER.
 */
export async function loadEndorsementKey(device: TpmDevice): Promise<LoadedEk> {
  for (const kind of EK_PREFERENCE) {
    const template = EK_TEMPLATES[kind]
    const stored = await readCertificate(device, template.certificateIndex)
    if (stored === undefined) continue
    const certificate = stored.slice(0, derLength(stored))
    const key = await createPrimary(device, template.creation)
    if (equalBytes(certificateKey(certificate), encodedKey(parsePublicArea(key.publicArea)))) {
      return { template, certificate, handle: key.handle }
    }
    await flushContext(device, key.handle)
    throw new UnverifiedError('ERR_TPM_EK_MISMATCH', `the ${kind} EK of this TPM is not that of its certificate`, {
      hint: 'The TPM was provisioned with the certificate of another one, or its EK was made from another template.',
    })
  }
  throw new UnavailableError('ERR_TPM_NO_EK_CERTIFICATE', 'the TPM holds no EK certificate', {
    hint: 'Set the TPM up with one (swtpm_setup --create-ek-cert); ECC P-384, P-256 and RSA-2048 are looked for.',
  })
}

async function readCertificate(device: TpmDevice, index: number): Promise<Uint8Array | undefined> {
  try {
    return await readNvIndex(device, index)
  } catch (error) {
    if (error instanceof TpmResponseError && error.responseCode === RC_NO_SUCH_HANDLE) return undefined
    throw error
  }
}

/** subjectPublicKey of the certificate, without the count of unused bits (RFC 5280 section 4.1). */
function certificateKey(certificate: Uint8Array): Uint8Array {
  const [tbs] = readDer(readSingleDer(certificate, DER_TAG.sequence).content)
  const fields = readDer(tbs?.content ?? new Uint8Array()).filter(({ tag }) => (tag & 0xc0) === 0)
  // serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo; the version is context-tagged
  const info = readDer(fields[5]?.content ?? new Uint8Array())
  return info.find(({ tag }) => tag === DER_TAG.bitString)?.content.slice(1) ?? new Uint8Array()
}

/** The key as subjectPublicKey spells it: a point (SEC 1 section 2.3.3), or RSAPublicKey (RFC 8017 appendix A.1.1). */
function encodedKey(area: PublicArea): Uint8Array {
  if (area.type === 'ecc') return concatBytes(Uint8Array.of(4), area.x, area.y)
  const modulus = derInteger(area.modulus)
  const exponent = derInteger(Uint8Array.of(1, 0, 1))
  return derValue(DER_TAG.sequence, concatBytes(modulus, exponent))
}

function derInteger(magnitude: Uint8Array): Uint8Array {
  const negative = ((magnitude[0] ?? 0) & 0x80) !== 0
  return derValue(DER_TAG.integer, negative ? concatBytes(Uint8Array.of(0), magnitude) : magnitude)
}

function derValue(tag: number, content: Uint8Array): Uint8Array {
  const { length } = content
  if (length < 0x80) return concatBytes(Uint8Array.of(tag, length), content)
  const size = length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return concatBytes(Uint8Array.of(tag, ...size), content)
}
