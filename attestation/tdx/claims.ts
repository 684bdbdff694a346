/** What a TDX quote, its certificate and Intel's documents say, by the names of docs/claims.md. Believed or not. */
import { toHex } from '#protocol/encoding'
import type { Claims, ClaimValue } from '../evidence/verdict.ts'
import { describeLog } from '../tpm/parse/describe-log.ts'
import type { TcbEvaluation } from './evaluate/tcb-status.ts'
import { isDebugTd } from './evaluate/td-attributes.ts'
import type { TdxEvidence } from './parse/evidence.ts'
import type { TdReport } from './parse/td-report.ts'
import type { Endorsement } from './verify/endorsement.ts'

/** @param tcb undefined when the platform's versions were not judged */
export function claimsOf(
  { quote, eventLog }: TdxEvidence,
  report: TdReport,
  judged: { readonly endorsement: Endorsement; readonly tcb: TcbEvaluation | undefined },
): Claims {
  const { endorsement, tcb } = judged
  const events = eventLog === undefined ? undefined : describeLog(eventLog)
  return {
    report_version: quote.version,
    measurement: toHex(report.mrTd),
    ...reportClaims(report),
    ...pckClaims(endorsement),
    tcb: { tee_tcb_svn: toHex(report.teeTcbSvn), ...componentClaims(endorsement) },
    tcb_status: tcb?.status ?? null,
    tcb_date: tcb?.tcbDate ?? null,
    tcb_evaluation_data_number: endorsement.tcbInfo?.evaluationDataNumber ?? null,
    advisory_ids: tcb?.advisoryIds ?? [],
    qe_svn: quote.qeReport.isvSvn,
    ...(events === undefined ? {} : { events }),
  }
}

function reportClaims(report: TdReport): Record<string, ClaimValue> {
  const rtmr = (index: number): string => toHex(report.rtmrs[index] ?? new Uint8Array())
  return {
    mrtd: toHex(report.mrTd),
    rtmr0: rtmr(0),
    rtmr1: rtmr(1),
    rtmr2: rtmr(2),
    rtmr3: rtmr(3),
    report_data: toHex(report.reportData),
    mr_config_id: toHex(report.mrConfigId),
    mr_owner: toHex(report.mrOwner),
    mr_owner_config: toHex(report.mrOwnerConfig),
    mr_seam: toHex(report.mrSeam),
    mr_signer_seam: toHex(report.mrSignerSeam),
    seam_attributes: little(report.seamAttributes),
    td_attributes: little(report.tdAttributes),
    xfam: little(report.xfam),
    tee_tcb_svn: toHex(report.teeTcbSvn),
    ...(report.tdx15 === undefined
      ? {}
      : { tee_tcb_svn2: toHex(report.tdx15.teeTcbSvn2), mr_service_td: toHex(report.tdx15.mrServiceTd) }),
    debug: isDebugTd(report),
  }
}

function pckClaims({ pck }: Endorsement): Record<string, ClaimValue> {
  if (pck === undefined) return { chip_id: null, fmspc: null, pceid: null, pck_ca_type: null }
  const { extension, ca, certificate } = pck
  const { configuration } = extension
  return {
    // The same for all certificates of one processor package, or of one machine.
    chip_id: extension.platformInstanceId ?? extension.ppid,
    ppid: extension.ppid,
    fmspc: extension.fmspc,
    pceid: extension.pceId,
    pck_ca_type: ca ?? null,
    pck_serial: certificate.serial,
    sgx_type: extension.sgxType,
    platform_instance_id: extension.platformInstanceId ?? null,
    dynamic_platform: configuration?.dynamicPlatform ?? null,
    cached_keys: configuration?.cachedKeys ?? null,
    smt_enabled: configuration?.smtEnabled ?? null,
  }
}

function componentClaims({ pck }: Endorsement): Record<string, ClaimValue> {
  if (pck === undefined) return {}
  const { cpuSvn, sgxComponents, pceSvn } = pck.extension
  return { cpu_svn: cpuSvn, sgx_components: sgxComponents, pce_svn: pceSvn }
}

/** Hex in the order of the quote's bytes, as everybody prints these fields. */
function little(value: bigint): string {
  return toHex(Buffer.from(value.toString(16).padStart(16, '0'), 'hex').reverse())
}
