/** The appraisal policy: what a tenant demands of evidence, beyond its being genuine. docs/appraisal.md describes the document. */
import type { Tee } from '../evidence/verdict.ts'
import type { ParsedCertificate } from '../x509/certificate.ts'
import type { Condition } from './condition.ts'

/** Security patch levels that are at least wanted, of one product. */
export type SnpMinimum = Readonly<Partial<Record<SnpTcbComponent, number>>>

export const SNP_TCB_COMPONENTS = ['fmc', 'boot_loader', 'tee', 'snp', 'microcode'] as const
export type SnpTcbComponent = (typeof SNP_TCB_COMPONENTS)[number]

export const SNP_PRODUCTS = ['Milan', 'Genoa', 'Turin'] as const

/** What a policy may accept; `Revoked` it may not. */
export const TCB_STATUSES = [
  'UpToDate',
  'SWHardeningNeeded',
  'ConfigurationNeeded',
  'ConfigurationAndSWHardeningNeeded',
  'OutOfDate',
  'OutOfDateConfigurationNeeded',
  'TDRelaunchAdvised',
  'TDRelaunchAdvisedConfigurationNeeded',
] as const

/** Weaknesses that a tenant may decide to live with; docs/claims.md says what each is. Nothing that was disproven is among them. */
export const PERMITTED_FINDINGS = [
  'sept_ve',
  'migratable',
  'service_td',
  'unjudged_attributes',
  'host_requested',
  'weak_hash',
  'event_log_incomplete',
  'secure_boot_undetermined',
  'unchecked_crl',
] as const

export interface TdxMinimum {
  /** 16 bytes, compared one by one; undefined: whatever Intel's status says is enough. */
  readonly teeTcbSvn: Uint8Array | undefined
  /** Statuses that are accepted besides UpToDate; others are refused. Undefined: they are warned of. */
  readonly statuses: readonly string[] | undefined
  /** Advisories that are accepted; undefined: all that come with an accepted status. */
  readonly advisoryIds: readonly string[] | undefined
}

export interface AppraisalPolicy {
  /** Kinds of evidence that are accepted; undefined: all. */
  readonly tees: readonly Tee[] | undefined
  /** Whether a guest whose memory its host may read by debugging is accepted. */
  readonly debug: boolean
  /** Whether a TPM is accepted that is a program of the host's. */
  readonly emulated: boolean
  /** Codes of further warnings that are accepted, out of `PERMITTED_FINDINGS`. */
  readonly permit: readonly string[]
  /** Roots besides those pinned in code. */
  readonly anchors: readonly ParsedCertificate[]
  /** By product; undefined: no minimum. A product that is not named is refused. */
  readonly snpMinimum: ReadonlyMap<string, SnpMinimum> | undefined
  readonly tdxMinimum: TdxMinimum | undefined
  /** Claim to the values that are accepted, lower-case hex. */
  readonly measurements: ReadonlyMap<string, readonly string[]>
  /** Bank to PCR number to accepted values. */
  readonly pcrs: ReadonlyMap<string, ReadonlyMap<number, readonly string[]>>
  readonly conditions: readonly Condition[]
}

/** What holds without a policy: nothing is permitted that weakens the guest, nothing particular is demanded of it. */
export const STRICT_POLICY: AppraisalPolicy = {
  tees: undefined,
  debug: false,
  emulated: false,
  permit: [],
  anchors: [],
  snpMinimum: undefined,
  tdxMinimum: undefined,
  measurements: new Map(),
  pcrs: new Map(),
  conditions: [],
}
