/** The three links within a quote: PCK key → report of the quoting enclave → attestation key → what is quoted. */
import { createHash } from 'node:crypto'
import { equalBytes } from '#protocol/encoding'
import type { ParsedCertificate } from '../../x509/certificate.ts'
import { fingerprint } from '../../x509/fingerprint.ts'
import type { Quote } from '../parse/quote.ts'
import { p256Key, verifyByCertificate, verifyP256 } from './ecdsa.ts'
import type { EnclaveCache } from './enclave-cache.ts'

const DIGEST_BYTES = 32

/** One quote is judged several times, with more collateral and by each policy: its signatures do not change. */
const known = new WeakMap<Quote, Map<string, boolean>>()
const BY_ATTESTATION_KEY = 'attestation key'

/** Header and body are signed by the attestation key that the quote carries. @param enclaves those that were seen before */
export function verifyQuoteSignature(quote: Quote, enclaves?: EnclaveCache): boolean {
  return once(quote, BY_ATTESTATION_KEY, () => {
    const key = enclaves === undefined ? p256Key(quote.attestationKey) : enclaves.attestationKey(quote.attestationKey)
    return key !== undefined && verifyP256(key, quote.signed, quote.signature)
  })
}

/** The quoting enclave vouches for the attestation key: its report data is SHA-256(key ‖ authentication data), then zeros. */
export function bindsAttestationKey({ attestationKey, qeAuthData, qeReport }: Quote): boolean {
  const digest = createHash('sha256').update(attestationKey).update(qeAuthData).digest()
  const { reportData } = qeReport
  return (
    equalBytes(digest, reportData.subarray(0, DIGEST_BYTES)) &&
    reportData.subarray(DIGEST_BYTES).every((byte) => byte === 0)
  )
}

/** The report was made on the platform of this provisioning certificate. @param enclaves those that were seen before */
export function verifyQeReport(quote: Quote, pck: ParsedCertificate, enclaves?: EnclaveCache): boolean {
  return once(quote, fingerprint(pck), () =>
    enclaves === undefined
      ? verifyByCertificate(pck, quote.qeReportBytes, quote.qeReportSignature)
      : enclaves.isReportSigned(quote, pck),
  )
}

/** @param link fingerprint of the certificate, or which key it is */
function once(quote: Quote, link: string, verify: () => boolean): boolean {
  const links = known.get(quote) ?? new Map<string, boolean>()
  known.set(quote, links)
  const holds = links.get(link) ?? verify()
  links.set(link, holds)
  return holds
}
