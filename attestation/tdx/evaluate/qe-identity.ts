/** Is the enclave that signed a quote one of Intel's, and which of its levels is it at? (verification library, 4.1.2.9) */
import { toHex } from '#protocol/encoding'
import type { EnclaveIdentity } from '../parse/enclave-identity.ts'
import type { EnclaveReport } from '../parse/enclave-report.ts'
import type { IsvSvnLevel } from '../parse/tcb-info.ts'

export interface QeMismatch {
  readonly field: 'MRSIGNER' | 'ISVPRODID' | 'MISCSELECT' | 'ATTRIBUTES' | 'ISVSVN'
  readonly expected: string
  readonly found: string
}

export type QeEvaluation =
  | { readonly level: IsvSvnLevel; readonly mismatch?: never }
  | { readonly mismatch: QeMismatch; readonly level?: never }

export function evaluateQe(report: EnclaveReport, identity: EnclaveIdentity): QeEvaluation {
  const [misc, attributes] = [miscBytes(report.miscSelect), report.attributes]
  const comparisons: readonly QeMismatch[] = [
    { field: 'MRSIGNER', expected: identity.mrSigner, found: toHex(report.mrSigner) },
    { field: 'ISVPRODID', expected: String(identity.isvProdId), found: String(report.isvProdId) },
    { field: 'MISCSELECT', expected: identity.miscSelect, found: masked(misc, identity.miscSelectMask) },
    { field: 'ATTRIBUTES', expected: identity.attributes, found: masked(attributes, identity.attributesMask) },
  ]
  const mismatch = comparisons.find(({ expected, found }) => expected !== found)
  if (mismatch !== undefined) return { mismatch }
  const level = identity.levels.find(({ isvSvn }) => report.isvSvn >= isvSvn)
  if (level !== undefined) return { level }
  const lowest = identity.levels.at(-1)?.isvSvn ?? 0
  return { mismatch: { field: 'ISVSVN', expected: `${lowest} or higher`, found: String(report.isvSvn) } }
}

function miscBytes(miscSelect: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, miscSelect, true)
  return bytes
}

function masked(bytes: Uint8Array, mask: string): string {
  const maskBytes = Buffer.from(mask, 'hex')
  return toHex(bytes.map((byte, index) => byte & (maskBytes[index] ?? 0)))
}
