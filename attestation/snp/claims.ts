/** Everything that a report and the certificate of its key say, by name: docs/claims.md. */
import { fromBase64, toHex } from '#protocol/encoding'
import type { Claims, ClaimValue } from '../evidence/verdict.ts'
import type { ParsedCertificate } from '../x509/certificate.ts'
import { fingerprint } from '../x509/fingerprint.ts'
import { versionText } from './evaluate/report-rules.ts'
import { readGuestPolicy, readPlatformInfo } from './parse/guest-policy.ts'
import { HOST_REQUESTED, type SnpReport } from './parse/report.ts'
import { readTcb } from './parse/tcb.ts'
import type { VekExtensions } from './parse/vek-extensions.ts'
import type { ProductLine } from './product.ts'
import { isChipMasked } from './verify/vek-binding.ts'

export interface VekFacts {
  readonly certificate: ParsedCertificate
  /** Undefined when the certificate's extensions are not those of an endorsement key. */
  readonly extensions: VekExtensions | undefined
}

export function snpClaims(report: SnpReport, product: ProductLine | undefined, vek: VekFacts | undefined): Claims {
  const policy = readGuestPolicy(report.policy, report.version)
  return {
    report_version: report.version,
    product: product ?? null,
    cpuid: report.cpuid === undefined ? null : { ...report.cpuid },
    measurement: toHex(report.measurement),
    report_data: toHex(report.reportData),
    host_data: toHex(report.hostData),
    family_id: toHex(report.familyId),
    image_id: toHex(report.imageId),
    guest_svn: report.guestSvn,
    vmpl: report.vmpl === HOST_REQUESTED ? null : report.vmpl,
    debug: policy.debug,
    policy: policyClaims(report),
    platform: platformClaims(report),
    tcb: tcbClaim(report.reportedTcb, product),
    tcb_current: tcbClaim(report.currentTcb, product),
    tcb_committed: tcbClaim(report.committedTcb, product),
    tcb_launch: tcbClaim(report.launchTcb, product),
    tcb_status: null, // AMD publishes none; a policy compares `tcb` with a minimum
    advisory_ids: [],
    firmware_version: versionText(report.currentVersion),
    firmware_version_committed: versionText(report.committedVersion),
    mitigations_launch: hex64(report.launchMitigations),
    mitigations_current: hex64(report.currentMitigations),
    chip_id: isChipMasked(report) ? null : toHex(report.chipId),
    signing_key: report.signingKey,
    chip_key_masked: report.chipKeyMasked,
    author_key: report.authorKeyEnabled,
    id_key_digest: toHex(report.idKeyDigest),
    author_key_digest: toHex(report.authorKeyDigest),
    report_id: toHex(report.reportId),
    report_id_ma: toHex(report.migrationAgentReportId),
    endorsement_key: vek === undefined ? null : endorsementClaims(vek),
  }
}

function policyClaims(report: SnpReport): ClaimValue {
  const policy = readGuestPolicy(report.policy, report.version)
  return {
    value: `0x${report.policy.toString(16)}`,
    abi_major: policy.abiMajor,
    abi_minor: policy.abiMinor,
    smt: policy.smt,
    migrate_ma: policy.migrate,
    debug: policy.debug,
    single_socket: policy.singleSocket,
    cxl: policy.cxl,
    aes_256_xts: policy.aes256Xts,
    rapl_disabled: policy.raplDisabled,
    ciphertext_hiding: policy.ciphertextHiding,
    page_swap_disabled: policy.pageSwapDisabled,
  }
}

function platformClaims({ platformInfo }: SnpReport): ClaimValue {
  const platform = readPlatformInfo(platformInfo)
  return {
    value: `0x${platformInfo.toString(16)}`,
    smt: platform.smt,
    tsme: platform.tsme,
    ecc: platform.ecc,
    rapl_disabled: platform.raplDisabled,
    ciphertext_hiding: platform.ciphertextHiding,
    alias_check_complete: platform.aliasCheckComplete,
    tio: platform.tio,
    unknown_bits: `0x${platform.unknown.toString(16)}`,
  }
}

/** Levels by component, and all eight bytes. */
function tcbClaim(tcb: Uint8Array, product: ProductLine | undefined): ClaimValue {
  return { ...(product === undefined ? {} : readTcb(tcb, product)), value: toHex(tcb) }
}

function endorsementClaims({ certificate, extensions }: VekFacts): ClaimValue {
  return {
    sha256: toHex(fromBase64(fingerprint(certificate), 'fingerprint')),
    product_name: extensions?.productName ?? null,
    hwid: extensions?.hwid === undefined ? null : toHex(extensions.hwid),
    csp_id: extensions?.cspId ?? null,
    valid_from: certificate.notBefore.toISOString(),
    valid_until: certificate.notAfter.toISOString(),
  }
}

/** Text, because 64 bits are more than a JSON number holds. */
function hex64(value: bigint | undefined): string | null {
  return value === undefined ? null : `0x${value.toString(16).padStart(16, '0')}`
}
