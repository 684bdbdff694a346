/**
 * What Intel says of a platform at the security versions that its certificate and its quote name: the algorithm that Intel
 * publishes with its collateral ("Get TDX TCB Info", and the verification library's sections 4.1.2.4.11 and 4.1.2.4.17).
 */
import type { PckExtension } from '../parse/pck-extension.ts'
import type { IsvSvnLevel, LevelStatus, TcbInfo, TcbLevel, TdxModule, TdxModuleIdentity } from '../parse/tcb-info.ts'

/** The last two are never in Intel's documents: they follow from a TD that an older module started. */
export type TcbStatus = LevelStatus | 'TDRelaunchAdvised' | 'TDRelaunchAdvisedConfigurationNeeded'

export type TcbProblem =
  /** Older than all that Intel lists. */
  | { readonly code: 'tcb_not_supported'; readonly message: string }
  /** No identity of this major version of the TDX module. */
  | { readonly code: 'tdx_module_unknown'; readonly message: string }

export interface TcbEvaluation {
  readonly status: TcbStatus
  /** ISO 8601, of the platform's level. */
  readonly tcbDate: string
  /** Of platform, TDX module and quoting enclave, each once. */
  readonly advisoryIds: readonly string[]
}

/** What a quote says of the TDX module. SGX quotes have none of it. */
export interface TdxVersions {
  readonly teeTcbSvn: Uint8Array
  /** Of TDX 1.5 bodies. */
  readonly teeTcbSvn2: Uint8Array | undefined
}

export interface TcbSubject {
  readonly tcbInfo: TcbInfo
  readonly pck: PckExtension
  /** Undefined for SGX. */
  readonly tdx: TdxVersions | undefined
  /** Undefined when the quoting enclave was not judged. */
  readonly qe: IsvSvnLevel | undefined
}

export function evaluateTcb(subject: TcbSubject): TcbEvaluation | TcbProblem {
  const { tcbInfo, pck, tdx, qe } = subject
  const platform = tcbInfo.levels.find((level) => platformReaches(pck, level))
  if (platform === undefined) return notSupported('the platform is older than every TCB level')
  if (tdx === undefined) return result(mergeWithQe(platform.status, qe), platform, qe === undefined ? [] : [qe])
  const level = tcbInfo.levels.find(
    (candidate) => platformReaches(pck, candidate) && tdxReaches(tdx.teeTcbSvn, candidate),
  )
  if (level === undefined) return notSupported('the TDX module is older than every TCB level')
  const module = moduleLevel(tcbInfo, tdx.teeTcbSvn)
  if (module !== undefined && 'code' in module) return module
  const merged = mergeWithModule(level.status, module?.status)
  const relaunch = relaunchStatus(subject, { platform: platform.status, tdx: merged, module: module?.status })
  if (typeof relaunch !== 'string') return relaunch
  return result(mergeWithQe(relaunch, qe), level, [module, qe])
}

function result(status: TcbStatus, level: TcbLevel, others: readonly (IsvSvnLevel | undefined)[]): TcbEvaluation {
  const advisoryIds = [...new Set([level, ...others].flatMap((judged) => judged?.advisoryIds ?? []))]
  return { status, tcbDate: level.tcbDate, advisoryIds }
}

/** Every component at least as new, not the whole compared as one number. */
function platformReaches(pck: PckExtension, level: TcbLevel): boolean {
  return (
    level.sgxComponents.every((needed, index) => (pck.sgxComponents[index] ?? -1) >= needed) &&
    pck.pceSvn >= level.pceSvn
  )
}

/** From module version 1 on, the module has an identity and levels of its own: its two bytes are not compared here. */
function tdxReaches(teeTcbSvn: Uint8Array, level: TcbLevel): boolean {
  const first = (teeTcbSvn[1] ?? 0) > 0 ? 2 : 0
  return level.tdxComponents?.every((needed, index) => index < first || (teeTcbSvn[index] ?? -1) >= needed) ?? false
}

/** What the module's makers must be, by its major version; undefined when Intel knows no such version. */
export function moduleIdentity(tcbInfo: TcbInfo, teeTcbSvn: Uint8Array): TdxModule | TdxModuleIdentity | undefined {
  return (teeTcbSvn[1] ?? 0) === 0 ? tcbInfo.tdxModule : identityOf(tcbInfo, teeTcbSvn)
}

function identityOf(tcbInfo: TcbInfo, teeTcbSvn: Uint8Array): TdxModuleIdentity | undefined {
  const id = moduleId(teeTcbSvn)
  return tcbInfo.tdxModuleIdentities.find((identity) => identity.id === id)
}

function moduleId(teeTcbSvn: Uint8Array): string {
  return `TDX_${(teeTcbSvn[1] ?? 0).toString(16).toUpperCase().padStart(2, '0')}`
}

/** Undefined for modules of version 0, whose levels are those of the platform. */
function moduleLevel(tcbInfo: TcbInfo, teeTcbSvn: Uint8Array): IsvSvnLevel | TcbProblem | undefined {
  if ((teeTcbSvn[1] ?? 0) === 0) return undefined
  const identity = identityOf(tcbInfo, teeTcbSvn)
  if (identity === undefined) return unknownModule(teeTcbSvn)
  const level = identity.levels.find(({ isvSvn }) => (teeTcbSvn[0] ?? -1) >= isvSvn)
  return level ?? notSupported(`${identity.id} is older than every level of its identity`)
}

function mergeWithModule(status: LevelStatus, module: LevelStatus | undefined): LevelStatus {
  if (module === 'Revoked') return 'Revoked'
  return module === undefined || module === 'UpToDate' ? status : outOfDate(status)
}

/** Anything but up to date makes the enclave's part out of date: its documents know no finer shades. */
function mergeWithQe(status: TcbStatus, qe: IsvSvnLevel | undefined): TcbStatus {
  if (qe?.status === 'Revoked') return 'Revoked'
  if (qe === undefined || qe.status === 'UpToDate') return status
  return status === 'TDRelaunchAdvised' || status === 'TDRelaunchAdvisedConfigurationNeeded'
    ? status
    : outOfDate(status)
}

function outOfDate(status: LevelStatus): LevelStatus {
  switch (status) {
    case 'UpToDate':
    case 'SWHardeningNeeded':
      return 'OutOfDate'
    case 'ConfigurationNeeded':
    case 'ConfigurationAndSWHardeningNeeded':
      return 'OutOfDateConfigurationNeeded'
    case 'OutOfDate':
    case 'OutOfDateConfigurationNeeded':
    case 'Revoked':
      return status
  }
}

const NEEDS_CONFIGURATION: ReadonlySet<TcbStatus> = new Set([
  'ConfigurationNeeded',
  'ConfigurationAndSWHardeningNeeded',
  'OutOfDateConfigurationNeeded',
])

/**
 * A TD that an out-of-date module started, on a platform whose module was updated since: started anew, it would be up to
 * date (TDX 1.5 bodies only).
 */
function relaunchStatus(
  { tcbInfo, tdx, qe }: TcbSubject,
  status: { readonly platform: LevelStatus; readonly tdx: LevelStatus; readonly module: LevelStatus | undefined },
): TcbStatus | TcbProblem {
  const now = tdx?.teeTcbSvn2
  const platformCurrent = !['OutOfDate', 'OutOfDateConfigurationNeeded', 'Revoked'].includes(status.platform)
  const tdxOld = status.tdx === 'OutOfDate' || status.tdx === 'OutOfDateConfigurationNeeded'
  if (now === undefined || !platformCurrent || !tdxOld || status.module !== 'OutOfDate') return status.tdx
  if (qe !== undefined && qe.status !== 'UpToDate') return status.tdx
  const latest = tcbInfo.levels[0]?.tdxComponents ?? []
  let wanted = latest[0] ?? Number.POSITIVE_INFINITY
  if ((now[1] ?? 0) > 0) {
    const identity = identityOf(tcbInfo, now)
    if (identity === undefined) return unknownModule(now)
    if (identity.levels[0] === undefined) return notSupported(`${identity.id} has no levels`)
    wanted = identity.levels[0].isvSvn
  }
  const updated = (now[0] ?? -1) >= wanted && (now[2] ?? -1) >= (latest[2] ?? Number.POSITIVE_INFINITY)
  if (!updated) return status.tdx
  return NEEDS_CONFIGURATION.has(status.platform) || NEEDS_CONFIGURATION.has(status.tdx)
    ? 'TDRelaunchAdvisedConfigurationNeeded'
    : 'TDRelaunchAdvised'
}

function notSupported(message: string): TcbProblem {
  return { code: 'tcb_not_supported', message }
}

function unknownModule(teeTcbSvn: Uint8Array): TcbProblem {
  return { code: 'tdx_module_unknown', message: `the TCB information has no identity ${moduleId(teeTcbSvn)}` }
}
