/**
 * Reference values of TDs, as `caisson measure tdx --json` prints them: MRTD, and RTMR0 to RTMR2 for each variant of the
 * builds of QEMU and OVMF that start the same artefacts. RTMR3 is the guest's own and not part of what booted.
 */
import { createHash } from 'node:crypto'
import { JsonFields } from '#protocol/json-fields'

export interface TdxVariant {
  /** Hex; undefined where it does not follow from the artefacts, and is then not compared. */
  readonly rtmr0: string | undefined
  readonly rtmr1: string
  readonly rtmr2: string
}

export interface TdxReferenceEvent {
  readonly rtmr: number
  readonly type: string
  readonly description: string
  /** SHA-384, hex. */
  readonly digest: string | undefined
}

export interface TdxReferenceValues {
  readonly platform: 'tdx'
  readonly id: string
  readonly mrtd: string
  readonly variants: readonly TdxVariant[]
  /** Of the first variant. */
  readonly events: readonly TdxReferenceEvent[]
  readonly cmdline: string | undefined
}

const CODE = 'ERR_REFERENCE_VALUES'
const MAX_CHARS = 1024 * 1024
const MAX_VARIANTS = 16
const MAX_EVENTS = 256
const DIGEST_CHARS = 96
const ID = /^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$/
const DIGEST = /^[0-9a-f]{96}$/
const REGISTERS = ['rtmr0', 'rtmr1', 'rtmr2', 'rtmr3']
const MEMBERS = ['version', 'platform', 'id', 'measurement', 'mrtd', ...REGISTERS, 'variants', 'events', 'cmdline']

/** Strict, as `parseReferenceValues`. Throws `MalformedError` ERR_REFERENCE_VALUES. */
export function parseTdxReferenceValues(text: string): TdxReferenceValues {
  const fields = JsonFields.parse(text, 'reference values', { code: CODE, maxChars: MAX_CHARS })
  fields.only(MEMBERS)
  fields.integer('version', 1, 1)
  fields.oneOf('platform', ['tdx'])
  const id = fields.string('id', 128)
  if (!ID.test(id)) throw fields.error('id', 'letters, digits, "_", "-" and "." (not at the start) are needed')
  const mrtd = digest(fields, 'mrtd')
  if (fields.has('measurement') && fields.string('measurement', DIGEST_CHARS) !== mrtd) {
    throw fields.error('measurement', 'not the MRTD')
  }
  // The members beside `variants` repeat the first of them.
  const variants = (fields.has('variants') ? fields.objects('variants', MAX_VARIANTS) : [fields]).map(readVariant)
  if (variants.length === 0) throw fields.error('variants', 'empty')
  return {
    platform: 'tdx',
    id,
    mrtd,
    variants,
    events: fields.has('events') ? fields.objects('events', MAX_EVENTS).map(readEvent) : [],
    cmdline: fields.has('cmdline') ? fields.string('cmdline', 4096) : undefined,
  }
}

/** A name for measurements that were given none. */
export function defaultTdxId(mrtd: string, registers: readonly (string | null | undefined)[]): string {
  const hash = createHash('sha256').update(mrtd)
  for (const value of registers) hash.update(`\n${value ?? ''}`)
  return `tdx-${hash.digest('hex').slice(0, 16)}`
}

function readVariant(fields: JsonFields): TdxVariant {
  fields.only([...MEMBERS, 'kernel', 'separator'])
  for (const name of ['rtmr1', 'rtmr2']) {
    if (fields.has(name)) continue
    throw fields.error(name, 'missing: kernel and command line would not be compared; measure with --kernel')
  }
  return {
    rtmr0: fields.has('rtmr0') ? digest(fields, 'rtmr0') : undefined,
    rtmr1: digest(fields, 'rtmr1'),
    rtmr2: digest(fields, 'rtmr2'),
  }
}

function readEvent(fields: JsonFields): TdxReferenceEvent {
  fields.only(['rtmr', 'type', 'description', 'digest'])
  return {
    rtmr: fields.integer('rtmr', 0, 3),
    type: fields.string('type', 64),
    description: fields.string('description', 8192),
    digest: fields.has('digest') ? digest(fields, 'digest') : undefined,
  }
}

function digest(fields: JsonFields, name: string): string {
  const text = fields.string(name, DIGEST_CHARS)
  if (!DIGEST.test(text)) throw fields.error(name, 'a SHA-384 in lower-case hexadecimal is needed')
  return text
}
