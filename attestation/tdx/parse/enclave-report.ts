/** REPORTBODY of an SGX enclave (Intel SDM volume 3D, table 40-21): the quoting enclave's part of every quote. */
import type { ByteReader } from '#protocol/byte-reader'

export const ENCLAVE_REPORT_BYTES = 384

export interface EnclaveReport {
  /** 16 bytes. */
  readonly cpuSvn: Uint8Array
  readonly miscSelect: number
  /** 16 bytes: flags, then XFRM. */
  readonly attributes: Uint8Array
  /** 32 bytes. */
  readonly mrEnclave: Uint8Array
  /** 32 bytes. */
  readonly mrSigner: Uint8Array
  readonly isvProdId: number
  readonly isvSvn: number
  /** 64 bytes. */
  readonly reportData: Uint8Array
}

/** Bit 1 of ATTRIBUTES.FLAGS. */
const DEBUG = 0x02

export function isDebugEnclave(report: EnclaveReport): boolean {
  return ((report.attributes[0] ?? 0) & DEBUG) !== 0
}

/** Reserved fields are skipped: later processors give them meanings, and whoever signs the report vouches for them. */
export function readEnclaveReport(reader: ByteReader): EnclaveReport {
  const cpuSvn = reader.bytes(16)
  const miscSelect = reader.u32le()
  reader.skip(28)
  const attributes = reader.bytes(16)
  const mrEnclave = reader.bytes(32)
  reader.skip(32)
  const mrSigner = reader.bytes(32)
  reader.skip(96)
  const isvProdId = reader.u16le()
  const isvSvn = reader.u16le()
  reader.skip(60)
  const reportData = reader.bytes(64)
  return { cpuSvn, miscSelect, attributes, mrEnclave, mrSigner, isvProdId, isvSvn, reportData }
}
