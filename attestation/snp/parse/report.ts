/**
 * ATTESTATION_REPORT of SEV-SNP (AMD 56860, section 7.3), versions 2 to 5: bytes to fields. A parsed report is not a
 * verified one, and nothing in it is judged here: bytes that must be zero and are not are kept by name. Little-endian.
 */
import { ByteReader } from '#protocol/byte-reader'
import { MalformedError } from '#protocol/errors'
import type { Cpuid } from '../product.ts'
import { TCB_BYTES } from './tcb.ts'

export const REPORT_BYTES = 0x4a0
/** What the signature covers. */
export const SIGNED_BYTES = 0x2a0
/** A coordinate of a signature: P-384 needs 48 bytes, the rest is zero. */
export const SCALAR_BYTES = 72

export type ReportVersion = 2 | 3 | 4 | 5

/** `reserved`: a value that no firmware gives. */
export type SigningKey = 'vcek' | 'vlek' | 'none' | 'reserved'

export interface FirmwareVersion {
  readonly major: number
  readonly minor: number
  readonly build: number
}

export interface SnpReport {
  /** All of it, 1184 bytes. */
  readonly bytes: Uint8Array
  readonly version: ReportVersion
  readonly guestSvn: number
  /** GUEST_POLICY: see `guest-policy.ts`. */
  readonly policy: bigint
  /** 16 bytes each, from the ID block. */
  readonly familyId: Uint8Array
  readonly imageId: Uint8Array
  /** 0 to 3, or `HOST_REQUESTED`. */
  readonly vmpl: number
  /** 1: ECDSA P-384 with SHA-384. */
  readonly signatureAlgorithm: number
  /** TCB versions, 8 bytes each: see `tcb.ts`. */
  readonly currentTcb: Uint8Array
  readonly reportedTcb: Uint8Array
  readonly committedTcb: Uint8Array
  readonly launchTcb: Uint8Array
  readonly platformInfo: bigint
  readonly authorKeyEnabled: boolean
  readonly chipKeyMasked: boolean
  readonly signingKey: SigningKey
  /** 64 bytes, chosen by the guest. */
  readonly reportData: Uint8Array
  /** Launch digest, 48 bytes. */
  readonly measurement: Uint8Array
  /** 32 bytes, chosen by the host at launch. */
  readonly hostData: Uint8Array
  /** SHA-384 of the keys that signed the ID block and the ID key; zero when there were none. */
  readonly idKeyDigest: Uint8Array
  readonly authorKeyDigest: Uint8Array
  /** 32 bytes each. */
  readonly reportId: Uint8Array
  readonly migrationAgentReportId: Uint8Array
  /** Since version 3. */
  readonly cpuid: Cpuid | undefined
  /** 64 bytes; zero when the host masks it. */
  readonly chipId: Uint8Array
  readonly currentVersion: FirmwareVersion
  readonly committedVersion: FirmwareVersion
  /** Since version 5. */
  readonly launchMitigations: bigint | undefined
  readonly currentMitigations: bigint | undefined
  /** 72 bytes each, little-endian. */
  readonly signature: { readonly r: Uint8Array; readonly s: Uint8Array }
  /** Ranges that must be zero in this version and are not, by their place: "0x18b..0x1a0". */
  readonly reservedNotZero: readonly string[]
}

/** VMPL of a report that the host asked for, not the guest. */
export const HOST_REQUESTED = 0xffff_ffff

const AUTHOR_KEY_EN = 1
const MASK_CHIP_KEY = 2
const SIGNING_KEY_SHIFT = 2
const KEY_INFO_BITS = 5
const SIGNING_KEYS: Readonly<Record<number, SigningKey>> = { 0: 'vcek', 1: 'vlek', 7: 'none' }

/** Throws `MalformedError` ERR_SNP_REPORT for another length or version. */
export function parseSnpReport(report: Uint8Array): SnpReport {
  if (report.length !== REPORT_BYTES) {
    throw new MalformedError('ERR_SNP_REPORT', `a report of ${report.length} bytes; ${REPORT_BYTES} are needed`)
  }
  const bytes = report.slice()
  const reader = new ReportReader(bytes)
  const version = reader.u32le()
  if (version !== 2 && version !== 3 && version !== 4 && version !== 5) {
    throw new MalformedError('ERR_SNP_REPORT', `a report of version ${version}; versions 2 to 5 are known`)
  }
  const head = {
    guestSvn: reader.u32le(),
    policy: reader.u64le(),
    familyId: reader.bytes(16),
    imageId: reader.bytes(16),
    vmpl: reader.u32le(),
    signatureAlgorithm: reader.u32le(),
    currentTcb: reader.bytes(TCB_BYTES),
    platformInfo: reader.u64le(),
    ...readKeyInfo(reader),
  }
  reader.zero(4)
  const identity = {
    reportData: reader.bytes(64),
    measurement: reader.bytes(48),
    hostData: reader.bytes(32),
    idKeyDigest: reader.bytes(48),
    authorKeyDigest: reader.bytes(48),
    reportId: reader.bytes(32),
    migrationAgentReportId: reader.bytes(32),
    reportedTcb: reader.bytes(TCB_BYTES),
    cpuid: version >= 3 ? { family: reader.u8(), model: reader.u8(), stepping: reader.u8() } : undefined,
  }
  reader.zero(version >= 3 ? 21 : 24)
  const platform = {
    chipId: reader.bytes(64),
    committedTcb: reader.bytes(TCB_BYTES),
    currentVersion: readVersion(reader),
    committedVersion: readVersion(reader),
    launchTcb: reader.bytes(TCB_BYTES),
    launchMitigations: version >= 5 ? reader.u64le() : undefined,
    currentMitigations: version >= 5 ? reader.u64le() : undefined,
  }
  reader.zero(SIGNED_BYTES - reader.offset)
  const signature = { r: reader.bytes(SCALAR_BYTES), s: reader.bytes(SCALAR_BYTES) }
  reader.zero(reader.remaining)
  return { bytes, version, ...head, ...identity, ...platform, signature, reservedNotZero: reader.notZero }
}

/** Remembers ranges that must be zero and are not. */
class ReportReader extends ByteReader {
  readonly notZero: string[] = []

  constructor(bytes: Uint8Array) {
    super(bytes, 'attestation report')
  }

  zero(length: number): void {
    const start = this.offset
    if (this.bytes(length).some((byte) => byte !== 0)) this.note(start)
  }

  note(start: number): void {
    this.notZero.push(`0x${start.toString(16)}..0x${this.offset.toString(16)}`)
  }
}

function readKeyInfo(reader: ReportReader): Pick<SnpReport, 'authorKeyEnabled' | 'chipKeyMasked' | 'signingKey'> {
  const start = reader.offset
  const info = reader.u32le()
  if (info >>> KEY_INFO_BITS !== 0) reader.note(start)
  return {
    authorKeyEnabled: (info & AUTHOR_KEY_EN) !== 0,
    chipKeyMasked: (info & MASK_CHIP_KEY) !== 0,
    signingKey: SIGNING_KEYS[(info >>> SIGNING_KEY_SHIFT) & 7] ?? 'reserved',
  }
}

function readVersion(reader: ReportReader): FirmwareVersion {
  const [build, minor, major] = [reader.u8(), reader.u8(), reader.u8()]
  reader.zero(1)
  return { major, minor, build }
}
