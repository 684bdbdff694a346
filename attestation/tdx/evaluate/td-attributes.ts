/**
 * What a TD was allowed to be: TDATTRIBUTES and XFAM (Intel TDX module base architecture, "TD attributes"; ABI reference,
 * ATTRIBUTES and XFAM), and who made the TDX module.
 */
import { toHex } from '#protocol/encoding'
import type { Finding } from '../../evidence/verdict.ts'
import type { TdxModule } from '../parse/tcb-info.ts'
import type { TdReport } from '../parse/td-report.ts'

/** Bit numbers of TDATTRIBUTES. */
const ATTRIBUTE = {
  debug: 0,
  hgsPlusProf: 4,
  perfProf: 5,
  pmtProf: 6,
  icssd: 16,
  lass: 27,
  septVeDisable: 28,
  migratable: 29,
  pks: 30,
  kl: 31,
  tpa: 62,
  perfmon: 63,
} as const

/** The group TUD: with any bit of it, the TD is under debug or profiled by the host. */
const UNDER_DEBUG = 0xffn
/** Given a meaning by later versions of the module; what they do to a TD is not judged here. */
const LATER = bits(ATTRIBUTE.icssd, ATTRIBUTE.lass, ATTRIBUTE.tpa)
const DEFINED =
  UNDER_DEBUG |
  LATER |
  bits(ATTRIBUTE.septVeDisable, ATTRIBUTE.migratable, ATTRIBUTE.pks, ATTRIBUTE.kl, ATTRIBUTE.perfmon)
const TUD_DEFINED = bits(ATTRIBUTE.debug, ATTRIBUTE.hgsPlusProf, ATTRIBUTE.perfProf, ATTRIBUTE.pmtProf)

/** x87 and SSE are always there. */
const XFAM_FIXED = 0x3n
/** x87, SSE, AVX, AVX-512 (5 to 7), PT, PKRU, CET (11, 12), UINTR, LBR, AMX (17, 18). */
const XFAM_DEFINED = 0x6dbe7n
/** APX, which later modules let a TD use; older ones refuse it. */
const XFAM_LATER = 1n << 19n
/** Features of several bits are on or off as a whole: AVX-512, CET, AMX. */
const AVX = 1n << 2n
const AVX_512 = 0xe0n
const XFAM_GROUPS: readonly bigint[] = [AVX_512, 0x1800n, 0x60000n]

const REMEDY = 'Start the TD with other attributes; the host chooses them.'

export function isDebugTd({ tdAttributes }: TdReport): boolean {
  return (tdAttributes & 1n) !== 0n
}

export function attributeFindings(report: TdReport): Finding[] {
  const { tdAttributes: attributes, tdx15 } = report
  const found = `0x${attributes.toString(16).padStart(16, '0')}`
  const findings: Finding[] = []
  const add = (severity: Finding['severity'], code: string, message: string, expected: string): void => {
    findings.push({ severity, code, message, expected, found, remedy: REMEDY })
  }
  if (isDebugTd(report)) {
    add('contraindicated', 'debug', 'the TD is under debug: the host can read and change it', 'bit 0 clear')
  }
  if ((attributes & TUD_DEFINED & ~1n) !== 0n) {
    add('contraindicated', 'profiling', 'the host may profile the TD', 'bits 4 to 6 clear')
  }
  if ((attributes & ~DEFINED) !== 0n || (attributes & UNDER_DEBUG & ~TUD_DEFINED) !== 0n) {
    add('contraindicated', 'reserved_bits', 'TDATTRIBUTES has reserved bits set', 'reserved bits clear')
  }
  if ((attributes & bits(ATTRIBUTE.septVeDisable)) === 0n) {
    const message = 'the host can make memory accesses of the TD fail as it likes (SEPT_VE_DISABLE is clear)'
    add('warning', 'sept_ve', message, 'bit 28 set')
  }
  if ((attributes & bits(ATTRIBUTE.migratable)) !== 0n) {
    add('warning', 'migratable', 'the TD may be moved to platforms that nobody attested', 'bit 29 clear')
  }
  if ((attributes & LATER) !== 0n) {
    add('warning', 'unjudged_attributes', 'TDATTRIBUTES has bits of later TDX modules', 'bits 16, 27 and 62 clear')
  }
  if (tdx15?.mrServiceTd.some((byte) => byte !== 0) === true) {
    findings.push({
      severity: 'warning',
      code: 'service_td',
      message: 'a service TD is bound to the TD, and may change it',
      expected: 'MRSERVICETD of zeros',
      found: toHex(tdx15.mrServiceTd),
      remedy: REMEDY,
    })
  }
  return findings
}

export function xfamFindings({ xfam }: TdReport): Finding[] {
  const torn =
    XFAM_GROUPS.some((group) => (xfam & group) !== 0n && (xfam & group) !== group) ||
    ((xfam & AVX_512) !== 0n && (xfam & AVX) === 0n)
  const expected =
    (xfam & XFAM_FIXED) !== XFAM_FIXED
      ? 'bits 0 and 1 set'
      : (xfam & ~(XFAM_DEFINED | XFAM_LATER)) !== 0n
        ? 'reserved bits clear'
        : torn
          ? 'AVX-512 (with AVX), CET and AMX each on or off as a whole'
          : undefined
  const found = `0x${xfam.toString(16).padStart(16, '0')}`
  if (expected === undefined) {
    if ((xfam & XFAM_LATER) === 0n) return []
    const message = 'XFAM has a feature of later TDX modules'
    return [
      { severity: 'warning', code: 'unjudged_attributes', message, expected: 'bit 19 clear', found, remedy: REMEDY },
    ]
  }
  const message = 'XFAM has a value that no TDX module accepts'
  return [{ severity: 'contraindicated', code: 'xfam', message, expected, found, remedy: REMEDY }]
}

/** Without TCB information the module must be Intel's own, whose signer is written as zeros. */
const INTEL_MODULE: TdxModule = { mrSigner: '0'.repeat(96), attributes: '0'.repeat(16), attributesMask: 'f'.repeat(16) }

export function moduleFindings(report: TdReport, module: TdxModule = INTEL_MODULE): Finding[] {
  const remedy = 'Do not trust the platform: it runs a TDX module that is not the one Intel names.'
  const findings: Finding[] = []
  const signer = toHex(report.mrSignerSeam)
  if (signer !== module.mrSigner) {
    const message = 'the TDX module was signed by somebody else'
    const compared = { expected: module.mrSigner, found: signer }
    findings.push({ severity: 'contraindicated', code: 'tdx_module_signer', message, ...compared, remedy })
  }
  // A production module has no attributes, whatever the identity would allow.
  const expected = BigInt(`0x${Buffer.from(module.attributes, 'hex').reverse().toString('hex')}`)
  if (report.seamAttributes !== 0n || expected !== 0n) {
    const message = 'the TDX module has attributes that a production module does not have'
    const compared = { expected: '0', found: `0x${report.seamAttributes.toString(16)}` }
    findings.push({ severity: 'contraindicated', code: 'tdx_module_attributes', message, ...compared, remedy })
  }
  return findings
}

function bits(...numbers: readonly number[]): bigint {
  return numbers.reduce((value, number) => value | (1n << BigInt(number)), 0n)
}
