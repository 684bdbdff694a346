/** GUEST_POLICY (AMD 56860 section 4.3) and PLATFORM_INFO (section 7.3): bits to names. */
import type { ReportVersion } from './report.ts'

export interface GuestPolicy {
  /** Least ABI version of the firmware. */
  readonly abiMajor: number
  readonly abiMinor: number
  /** Hyper-threading may be on. */
  readonly smt: boolean
  /** A migration agent may be bound. */
  readonly migrate: boolean
  /** The host may read and change the guest's memory. */
  readonly debug: boolean
  readonly singleSocket: boolean
  readonly cxl: boolean
  /** Memory must be encrypted with AES-256-XTS. */
  readonly aes256Xts: boolean
  /** Power measurement must be off. */
  readonly raplDisabled: boolean
  readonly ciphertextHiding: boolean
  /** The host may not swap or move pages. */
  readonly pageSwapDisabled: boolean
  /** Bits that have another value than they must have in reports of this version. */
  readonly reservedWrong: readonly number[]
}

export interface PlatformInfo {
  readonly smt: boolean
  /** Transparent memory encryption under one key, besides the guests' own. */
  readonly tsme: boolean
  readonly ecc: boolean
  readonly raplDisabled: boolean
  readonly ciphertextHiding: boolean
  /** The memory was searched for aliased addresses since the last reset. */
  readonly aliasCheckComplete: boolean
  readonly tio: boolean
  /** Bits whose meaning is not known here: the format reserves them without demanding a value, and firmware sets some. */
  readonly unknown: bigint
}

const MUST_BE_ONE = 17
/** Versions of the format name more and more bits; PAGE_SWAP_DISABLE came after version 3. */
const FIRST_RESERVED: Readonly<Record<ReportVersion, number>> = { 2: 25, 3: 25, 4: 26, 5: 26 }

export function readGuestPolicy(policy: bigint, version: ReportVersion): GuestPolicy {
  const bit = bitOf(policy)
  return {
    abiMinor: Number(policy & 0xffn),
    abiMajor: Number((policy >> 8n) & 0xffn),
    smt: bit(16),
    migrate: bit(18),
    debug: bit(19),
    singleSocket: bit(20),
    cxl: bit(21),
    aes256Xts: bit(22),
    raplDisabled: bit(23),
    ciphertextHiding: bit(24),
    pageSwapDisabled: bit(25),
    reservedWrong: [...(bit(MUST_BE_ONE) ? [] : [MUST_BE_ONE]), ...reservedBits(policy, FIRST_RESERVED[version])],
  }
}

/** Those that are set, from `first` on: none in every honest report, so none is looked at one by one. */
function reservedBits(policy: bigint, first: number): number[] {
  if (policy >> BigInt(first) === 0n) return []
  return Array.from({ length: 64 - first }, (_, index) => first + index).filter(bitOf(policy))
}

export function readPlatformInfo(info: bigint): PlatformInfo {
  const bit = bitOf(info)
  return {
    smt: bit(0),
    tsme: bit(1),
    ecc: bit(2),
    raplDisabled: bit(3),
    ciphertextHiding: bit(4),
    aliasCheckComplete: bit(5),
    tio: bit(7),
    unknown: info & ~0xbfn,
  }
}

function bitOf(word: bigint): (bit: number) => boolean {
  return (bit) => ((word >> BigInt(bit)) & 1n) === 1n
}
