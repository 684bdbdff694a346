/** TCB information of Intel's provisioning certification service, versions 2 (SGX) and 3 (SGX and TDX). */
import { fromHex, toHex } from '#protocol/encoding'
import { JsonFields } from '#protocol/json-fields'
import { MAX_DOCUMENT_CHARS } from './signed-document.ts'

const CODE = 'ERR_TCB_INFO'
const COMPONENTS = 16
const MAX_LEVELS = 256
const MAX_IDENTITIES = 64

export const LEVEL_STATUSES = [
  'UpToDate',
  'SWHardeningNeeded',
  'ConfigurationNeeded',
  'ConfigurationAndSWHardeningNeeded',
  'OutOfDate',
  'OutOfDateConfigurationNeeded',
  'Revoked',
] as const

export type LevelStatus = (typeof LEVEL_STATUSES)[number]

interface Judged {
  readonly tcbDate: string
  readonly status: LevelStatus
  readonly advisoryIds: readonly string[]
}

export interface TcbLevel extends Judged {
  /** 16 of them, as of the TDX components. */
  readonly sgxComponents: readonly number[]
  readonly pceSvn: number
  /** Undefined in TCB information for SGX. */
  readonly tdxComponents: readonly number[] | undefined
}

export interface IsvSvnLevel extends Judged {
  readonly isvSvn: number
}

/** Who may have signed the TDX module. Hex. */
export interface TdxModule {
  readonly mrSigner: string
  readonly attributes: string
  readonly attributesMask: string
}

export interface TdxModuleIdentity extends TdxModule {
  /** TDX_01, TDX_03: the major version in hex, upper case. */
  readonly id: string
  /** Highest first. */
  readonly levels: readonly IsvSvnLevel[]
}

export interface TcbInfo {
  readonly id: 'SGX' | 'TDX'
  readonly version: 2 | 3
  readonly issueDate: Date
  readonly nextUpdate: Date
  /** Hex, lower case. */
  readonly fmspc: string
  readonly pceId: string
  readonly evaluationDataNumber: number
  readonly tdxModule: TdxModule | undefined
  readonly tdxModuleIdentities: readonly TdxModuleIdentity[]
  /** Highest first: by SGX components, then PCE, then TDX components. */
  readonly levels: readonly TcbLevel[]
}

/** @param text the signed object, without the answer around it. Throws `MalformedError` ERR_TCB_INFO. */
export function parseTcbInfo(text: string): TcbInfo {
  const fields = JsonFields.parse(text, 'tcbInfo', { code: CODE, maxChars: MAX_DOCUMENT_CHARS })
  const version = fields.integer('version', 2, 3) === 2 ? 2 : 3
  const id = version === 2 ? 'SGX' : fields.oneOf('id', ['SGX', 'TDX'])
  fields.integer('tcbType', 0, 0) // the only layout of components that is defined
  const levels = fields.objects('tcbLevels', MAX_LEVELS).map((level) => readLevel(level, version, id))
  if (levels.length === 0) throw fields.error('tcbLevels', 'at least one level is needed')
  const sorted = levels.sort((a, b) => compare(rank(b), rank(a)))
  if (sorted.some((level, index) => index > 0 && compare(rank(level), rank(sorted[index - 1])) === 0)) {
    throw fields.error('tcbLevels', 'a level occurs twice')
  }
  if (id === 'SGX' && (fields.has('tdxModule') || fields.has('tdxModuleIdentities'))) {
    throw fields.error('id', 'TCB information for SGX with a TDX module')
  }
  return {
    id,
    version,
    issueDate: readDate(fields, 'issueDate'),
    nextUpdate: readDate(fields, 'nextUpdate'),
    fmspc: readHex(fields, 'fmspc', 6),
    pceId: readHex(fields, 'pceId', 2),
    evaluationDataNumber: fields.integer('tcbEvaluationDataNumber', 0, 2 ** 31),
    tdxModule: id === 'TDX' ? readModule(fields.object('tdxModule')) : undefined,
    tdxModuleIdentities: fields.has('tdxModuleIdentities') ? readModuleIdentities(fields) : [],
    levels: sorted,
  }
}

function readLevel(fields: JsonFields, version: 2 | 3, id: 'SGX' | 'TDX'): TcbLevel {
  const tcb = fields.object('tcb')
  return {
    sgxComponents: version === 2 ? readNumberedComponents(tcb) : readComponents(tcb, 'sgxtcbcomponents'),
    pceSvn: tcb.integer('pcesvn', 0, 65535),
    tdxComponents: id === 'TDX' ? readComponents(tcb, 'tdxtcbcomponents') : undefined,
    ...readJudged(fields),
  }
}

function readNumberedComponents(tcb: JsonFields): number[] {
  return Array.from({ length: COMPONENTS }, (_, index) =>
    tcb.integer(`sgxtcbcomp${String(index + 1).padStart(2, '0')}svn`, 0, 255),
  )
}

function readComponents(tcb: JsonFields, name: string): number[] {
  const components = tcb.objects(name, COMPONENTS)
  if (components.length !== COMPONENTS) throw tcb.error(name, `${components.length} components, 16 are needed`)
  return components.map((component) => component.integer('svn', 0, 255))
}

function readJudged(fields: JsonFields): Judged {
  return {
    tcbDate: readDate(fields, 'tcbDate').toISOString(),
    status: fields.oneOf('tcbStatus', LEVEL_STATUSES),
    advisoryIds: fields.has('advisoryIDs') ? fields.strings('advisoryIDs', { maxItems: 512, maxChars: 64 }) : [],
  }
}

/** Levels of one number each, as the TDX module and the quoting enclaves have them; highest first. */
export function readIsvSvnLevels(fields: JsonFields): IsvSvnLevel[] {
  return fields
    .objects('tcbLevels', MAX_LEVELS)
    .map((level) => ({ isvSvn: level.object('tcb').integer('isvsvn', 0, 65535), ...readJudged(level) }))
    .sort((a, b) => b.isvSvn - a.isvSvn)
}

function readModule(fields: JsonFields): TdxModule {
  return {
    mrSigner: readHex(fields, 'mrsigner', 48),
    attributes: readHex(fields, 'attributes', 8),
    attributesMask: readHex(fields, 'attributesMask', 8),
  }
}

function readModuleIdentities(fields: JsonFields): TdxModuleIdentity[] {
  const identities = fields.objects('tdxModuleIdentities', MAX_IDENTITIES).map((identity) => ({
    id: identity.string('id', 16).toUpperCase(),
    ...readModule(identity),
    levels: readIsvSvnLevels(identity),
  }))
  if (new Set(identities.map(({ id }) => id)).size !== identities.length) {
    throw fields.error('tdxModuleIdentities', 'an identity occurs twice')
  }
  return identities
}

/** Lower-case hex of exactly `length` bytes. */
export function readHex(fields: JsonFields, name: string, length: number): string {
  const text = fields.string(name, 2 * length)
  if (text.length !== 2 * length || !/^[0-9a-fA-F]*$/.test(text)) {
    throw fields.error(name, `${length} bytes in hexadecimal are needed`)
  }
  return toHex(fromHex(text, name))
}

/** The only form in which Intel writes times: 2025-06-19T10:32:27Z. */
export function readDate(fields: JsonFields, name: string): Date {
  const text = fields.string(name, 32)
  const date = new Date(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$/.test(text) ? text : '')
  if (Number.isNaN(date.getTime()) || date.toISOString().slice(0, 19) !== text.slice(0, 19)) {
    throw fields.error(name, 'a time like 2025-06-19T10:32:27Z is needed')
  }
  return date
}

function rank(level: TcbLevel | undefined): readonly number[] {
  if (level === undefined) return []
  return [...level.sgxComponents, level.pceSvn, ...(level.tdxComponents ?? [])]
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (let index = 0; index < a.length; index++) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}
