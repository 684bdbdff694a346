/** Rules that every genuine report keeps, and those that a guest without weaknesses keeps: no keys are needed to see them. */
import { toHex } from '#protocol/encoding'
import { UsageError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import type { Finding } from '../../evidence/verdict.ts'
import { type GuestPolicy, readGuestPolicy, readPlatformInfo } from '../parse/guest-policy.ts'
import { type FirmwareVersion, HOST_REQUESTED, type SnpReport } from '../parse/report.ts'
import { tcbAtMost, tcbText } from '../parse/tcb.ts'
import type { ProductLine } from '../product.ts'
import { ECDSA_P384_SHA384 } from '../verify/report-signature.ts'

const HIGHEST_VMPL = 3
const NOT_GENUINE = 'Do not trust the report: no firmware makes one like it.'
const LAUNCH_OTHERWISE = 'Launch the guest with another policy; the host chooses it, an ID block can pin it.'

/** @param product undefined when nobody says it: levels are then shown as bytes */
export function reportFindings(report: SnpReport, product: ProductLine | undefined): Finding[] {
  return [
    ...formFindings(report),
    ...policyFindings(report),
    ...originFindings(report),
    ...tcbFindings(report, product),
  ]
}

function formFindings(report: SnpReport): Finding[] {
  const findings: Finding[] = []
  const refuse = (code: string, message: string, expected: string, found: string): void => {
    findings.push({ severity: 'contraindicated', code, message, expected, found, remedy: NOT_GENUINE })
  }
  for (const range of report.reservedNotZero) {
    refuse('reserved_bits', 'the report has values where its version demands zeros', 'zeros', `other bytes at ${range}`)
  }
  if (report.signatureAlgorithm !== ECDSA_P384_SHA384) {
    const found = String(report.signatureAlgorithm)
    refuse(
      'signature_algorithm',
      'the report is signed with an unknown algorithm',
      '1, ECDSA P-384 with SHA-384',
      found,
    )
  }
  if (report.signingKey === 'reserved') {
    refuse('signing_key', 'the report names a kind of key that does not exist', 'VCEK, VLEK', 'a reserved value')
  }
  if (report.signingKey === 'none') {
    findings.push({
      severity: 'contraindicated',
      code: 'unsigned',
      message: 'the report is not signed: the host has masked the chip’s key',
      expected: 'a report signed by a VCEK or VLEK',
      found: 'none',
      remedy: 'Ask the host’s operator to clear MASK_CHIP_KEY, or to load a VLEK.',
    })
  }
  return findings
}

function policyFindings(report: SnpReport): Finding[] {
  const policy = readGuestPolicy(report.policy, report.version)
  const found = `0x${report.policy.toString(16)}`
  const findings: Finding[] = []
  const add = (
    severity: Finding['severity'],
    code: string,
    message: string,
    expected: string,
    remedy: string,
  ): void => {
    findings.push({ severity, code, message, expected, found, remedy })
  }
  if (policy.reservedWrong.length > 0) {
    const message = `the guest policy has reserved bits with wrong values: ${policy.reservedWrong.join(', ')}`
    add('contraindicated', 'reserved_bits', message, 'bit 17 set, reserved bits clear', NOT_GENUINE)
  }
  if (policy.debug) {
    const message = 'the guest may be debugged: the host can read and change it'
    add('contraindicated', 'debug', message, 'bit 19 clear', LAUNCH_OTHERWISE)
  }
  if (policy.migrate) {
    const message = 'a migration agent may move the guest to platforms that nobody attested'
    add('warning', 'migratable', message, 'bit 18 clear', LAUNCH_OTHERWISE)
  }
  for (const broken of brokenPromises(report, policy)) {
    const message = `the platform does not do what the guest policy demands: ${broken}`
    add('contraindicated', 'policy_not_enforced', message, 'firmware that refuses such a guest', NOT_GENUINE)
  }
  return findings
}

/** Firmware does not run a guest whose policy the platform does not meet. */
function brokenPromises(report: SnpReport, policy: GuestPolicy): string[] {
  const platform = readPlatformInfo(report.platformInfo)
  const { major, minor } = report.currentVersion
  const stated = versionNumber(report.currentVersion) !== 0 // early firmware leaves it out
  const tooOld = stated && (policy.abiMajor > major || (policy.abiMajor === major && policy.abiMinor > minor))
  return [
    ...(tooOld ? [`ABI ${policy.abiMajor}.${policy.abiMinor}, the firmware has ${major}.${minor}`] : []),
    ...(platform.smt && !policy.smt ? ['no hyper-threading'] : []),
    ...(policy.raplDisabled && !platform.raplDisabled ? ['no power measurement'] : []),
    ...(policy.ciphertextHiding && !platform.ciphertextHiding ? ['ciphertext hiding'] : []),
  ]
}

function originFindings({ vmpl }: SnpReport): Finding[] {
  if (vmpl <= HIGHEST_VMPL) return []
  const found = `0x${vmpl.toString(16)}`
  if (vmpl === HOST_REQUESTED) {
    return [
      {
        severity: 'warning',
        code: 'host_requested',
        message: 'the host asked for this report, so nothing in it comes from the guest',
        expected: 'a report that the guest asked for',
        found,
        remedy: 'Ask the guest for a report over a nonce.',
      },
    ]
  }
  const message = 'the report names a privilege level that does not exist'
  return [{ severity: 'contraindicated', code: 'vmpl', message, expected: '0 to 3', found, remedy: NOT_GENUINE }]
}

/** LAUNCH_TCB is bound to nothing: firmware may have been updated or rolled back since, or the guest have come from elsewhere. */
function tcbFindings(report: SnpReport, product: ProductLine | undefined): Finding[] {
  const findings: Finding[] = []
  const refuse = (message: string, expected: string, found: string): void => {
    findings.push({ severity: 'contraindicated', code: 'tcb_order', message, expected, found, remedy: NOT_GENUINE })
  }
  const { reportedTcb, committedTcb, currentTcb } = report
  if (!tcbAtMost(committedTcb, currentTcb)) {
    const expected = `at most ${tcbText(currentTcb, product)}`
    refuse('the committed TCB is higher than the current one', expected, tcbText(committedTcb, product))
  }
  if (!tcbAtMost(reportedTcb, committedTcb)) {
    const expected = `at most ${tcbText(committedTcb, product)}`
    refuse('the reported TCB is higher than the committed one', expected, tcbText(reportedTcb, product))
  }
  if (versionNumber(report.committedVersion) > versionNumber(report.currentVersion)) {
    const expected = `at most ${versionText(report.currentVersion)}`
    refuse('the committed firmware is newer than the current one', expected, versionText(report.committedVersion))
  }
  return findings
}

export function versionText({ major, minor, build }: FirmwareVersion): string {
  return `${major}.${minor}.${build}`
}

function versionNumber({ major, minor, build }: FirmwareVersion): number {
  return (major << 16) | (minor << 8) | build
}

/** Report data must be the nonce, padded on the right with zeros. Throws `UsageError` ERR_NONCE for one that is longer. */
export function nonceFindings({ reportData }: SnpReport, nonce: Uint8Array | undefined): Finding[] {
  if (nonce === undefined) return []
  if (nonce.length > reportData.length) {
    throw new UsageError('ERR_NONCE', `a nonce of ${nonce.length} bytes; report data has ${reportData.length}`)
  }
  const wanted = new Uint8Array(reportData.length)
  wanted.set(nonce)
  if (nodeCrypto.timingSafeEqual(wanted, reportData)) return []
  return [
    {
      severity: 'contraindicated',
      code: 'nonce_mismatch',
      message: 'the report is not bound to the nonce: it was made for another occasion',
      expected: toHex(wanted),
      found: toHex(reportData),
      remedy: 'Ask the guest for a report with the nonce as report data.',
    },
  ]
}
