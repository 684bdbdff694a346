/** The part of a quote that describes a trust domain (Intel TDX DCAP quoting library API, appendix A.3.2 and A.4.2). */
import type { ByteReader } from '#protocol/byte-reader'

export const TD_REPORT_10_BYTES = 584
export const TD_REPORT_15_BYTES = 648

/** Registers are 48 bytes. */
export interface TdReport {
  /** Security versions of the TDX module and of what loaded it, 16 bytes; byte 0 is the module's, byte 1 its major version. */
  readonly teeTcbSvn: Uint8Array
  readonly mrSeam: Uint8Array
  readonly mrSignerSeam: Uint8Array
  readonly seamAttributes: bigint
  readonly tdAttributes: bigint
  readonly xfam: bigint
  readonly mrTd: Uint8Array
  readonly mrConfigId: Uint8Array
  readonly mrOwner: Uint8Array
  readonly mrOwnerConfig: Uint8Array
  /** Four of them. */
  readonly rtmrs: readonly Uint8Array[]
  /** 64 bytes. */
  readonly reportData: Uint8Array
  /** What TDX 1.5 adds. */
  readonly tdx15:
    | {
        /** As `teeTcbSvn`, of the module that runs now: the TD may have been started by an older one. */
        readonly teeTcbSvn2: Uint8Array
        readonly mrServiceTd: Uint8Array
      }
    | undefined
}

const REGISTER_BYTES = 48
const RTMR_COUNT = 4

export function readTdReport(reader: ByteReader, version: '1.0' | '1.5'): TdReport {
  const register = (): Uint8Array => reader.bytes(REGISTER_BYTES)
  return {
    teeTcbSvn: reader.bytes(16),
    mrSeam: register(),
    mrSignerSeam: register(),
    seamAttributes: reader.u64le(),
    tdAttributes: reader.u64le(),
    xfam: reader.u64le(),
    mrTd: register(),
    mrConfigId: register(),
    mrOwner: register(),
    mrOwnerConfig: register(),
    rtmrs: Array.from({ length: RTMR_COUNT }, register),
    reportData: reader.bytes(64),
    tdx15: version === '1.5' ? { teeTcbSvn2: reader.bytes(16), mrServiceTd: register() } : undefined,
  }
}
