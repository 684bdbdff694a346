/**
 * The named claims that policies may speak of: which kinds of evidence have them, and their types in conditions (CEL).
 * docs/claims.md says what each means; a claim that is not here cannot be named by a policy.
 */
import type { Tee } from '../evidence/verdict.ts'

export type ClaimType = 'string' | 'int' | 'bool' | 'list' | 'map'

export interface ClaimSpec {
  readonly type: ClaimType
  readonly tees: readonly Tee[]
  /** Hex of measured or configured state: may stand under `measurements`. */
  readonly measured?: true
}

const ALL: readonly Tee[] = ['snp', 'tdx', 'tpm']
const SNP: readonly Tee[] = ['snp']
const TDX: readonly Tee[] = ['tdx']
const TPM: readonly Tee[] = ['tpm']

const of = (type: ClaimType, tees: readonly Tee[]): ClaimSpec => ({ type, tees })
const measured = (tees: readonly Tee[]): ClaimSpec => ({ type: 'string', tees, measured: true })

export const CLAIM_TYPES: Readonly<Record<string, ClaimSpec>> = {
  tee: of('string', ALL),
  report_version: of('int', ALL),
  report_data: of('string', ALL),
  debug: of('bool', ALL),
  emulated: of('bool', ALL),
  tcb: of('map', ALL),
  tcb_status: of('string', ALL),
  advisory_ids: of('list', ALL),
  product: of('string', ALL),
  chip_id: of('string', ALL),
  measurement: measured(['snp', 'tdx']),
  // A virtual TPM on top of SNP or TDX (Azure) gives them as well.
  pcrs: of('map', ALL),

  host_data: measured(SNP),
  family_id: measured(SNP),
  image_id: measured(SNP),
  id_key_digest: measured(SNP),
  author_key_digest: measured(SNP),
  guest_svn: of('int', SNP),
  vmpl: of('int', SNP),
  policy: of('map', SNP),
  platform: of('map', SNP),
  cpuid: of('map', SNP),
  tcb_current: of('map', SNP),
  tcb_committed: of('map', SNP),
  tcb_launch: of('map', SNP),
  firmware_version: of('string', SNP),
  firmware_version_committed: of('string', SNP),
  mitigations_launch: of('string', SNP),
  mitigations_current: of('string', SNP),
  signing_key: of('string', SNP),
  chip_key_masked: of('bool', SNP),
  author_key: of('bool', SNP),
  report_id: of('string', SNP),
  report_id_ma: of('string', SNP),
  endorsement_key: of('map', SNP),

  mrtd: measured(TDX),
  rtmr0: measured(TDX),
  rtmr1: measured(TDX),
  rtmr2: measured(TDX),
  rtmr3: measured(TDX),
  mr_config_id: measured(TDX),
  mr_owner: measured(TDX),
  mr_owner_config: measured(TDX),
  mr_seam: measured(TDX),
  mr_signer_seam: measured(TDX),
  mr_service_td: measured(TDX),
  seam_attributes: of('string', TDX),
  td_attributes: of('string', TDX),
  xfam: of('string', TDX),
  tee_tcb_svn: of('string', TDX),
  tee_tcb_svn2: of('string', TDX),
  tcb_date: of('string', TDX),
  tcb_evaluation_data_number: of('int', TDX),
  qe_svn: of('int', TDX),
  ppid: of('string', TDX),
  fmspc: of('string', TDX),
  pceid: of('string', TDX),
  pck_ca_type: of('string', TDX),
  pck_serial: of('string', TDX),
  sgx_type: of('string', TDX),
  platform_instance_id: of('string', TDX),
  dynamic_platform: of('bool', TDX),
  cached_keys: of('bool', TDX),
  smt_enabled: of('bool', TDX),
  events: of('list', ['tdx', 'tpm']),

  pcr_selection: of('list', TPM),
  clock: of('int', TPM),
  reset_count: of('int', TPM),
  restart_count: of('int', TPM),
  safe: of('bool', TPM),
  qualified_signer: of('string', TPM),
  ak: of('string', TPM),
  ak_type: of('string', TPM),
  ak_attributes: of('string', TPM),
  ak_bound: of('bool', TPM),
  ak_certificate: of('string', TPM),
  ak_issuer: of('string', TPM),
  ek_certificate: of('string', TPM),
  ek_trusted: of('bool', TPM),
  event_log: of('map', TPM),
  secure_boot: of('bool', TPM),
  boot_applications: of('list', TPM),
  kernel_cmdline: of('string', TPM),
  images: of('list', TPM),

  evidence_form: of('string', ALL),
  hardware_report_data: of('string', ALL),
  vm_configuration: of('map', ALL),
  user_data: of('string', ALL),
  tpm: of('map', ALL),
}

/** Claims that `measurements` may list values of, besides `pcrs`. */
export const MEASURED_CLAIMS: readonly string[] = Object.entries(CLAIM_TYPES)
  .filter(([, { measured }]) => measured === true)
  .map(([name]) => name)
