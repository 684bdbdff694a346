/**
 * What was verified of quoting enclaves. One serves its platform with the same key and the same report for as long as the
 * platform runs, so both come with every quote. Known again are the very same bytes and nothing else.
 */
import { createHash, type KeyObject } from 'node:crypto'
import { toBase64 } from '#protocol/encoding'
import type { ParsedCertificate } from '../../x509/certificate.ts'
import type { Quote } from '../parse/quote.ts'
import { p256Key, verifyByCertificate } from './ecdsa.ts'

export class EnclaveCache {
  /** By the point, base64. */
  readonly #keys = new Map<string, KeyObject>()
  /** Digests of certificate, report and signature that fit each other. */
  readonly #reports = new Set<string>()
  readonly #capacity: number

  /** @param capacity enclaves that are kept, the oldest first to go */
  constructor(capacity = 1_024) {
    this.#capacity = capacity
  }

  /** As `p256Key`: undefined for what is no point of the curve. */
  attestationKey(point: Uint8Array): KeyObject | undefined {
    const name = toBase64(point)
    const known = this.#keys.get(name)
    if (known !== undefined) return known
    const key = p256Key(point)
    if (key === undefined) return undefined
    const [oldest] = this.#keys.keys()
    if (this.#keys.size >= this.#capacity && oldest !== undefined) this.#keys.delete(oldest)
    this.#keys.set(name, key)
    return key
  }

  /** Whether the platform's certified key signed the enclave's report. */
  isReportSigned({ qeReportBytes, qeReportSignature }: Quote, pck: ParsedCertificate): boolean {
    // Report and signature have fixed lengths: no two inputs have the same spelling.
    const digest = createHash('sha256').update(qeReportBytes).update(qeReportSignature).update(pck.der).digest('base64')
    if (this.#reports.has(digest)) return true
    if (!verifyByCertificate(pck, qeReportBytes, qeReportSignature)) return false
    const [oldest] = this.#reports
    if (this.#reports.size >= this.#capacity && oldest !== undefined) this.#reports.delete(oldest)
    this.#reports.add(digest)
    return true
  }
}
