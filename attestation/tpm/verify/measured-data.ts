/**
 * Whether the data of an event is what was measured. Digests that replay to quoted PCRs are genuine; what the log says beside
 * them is so only where it hashes to the digest (PC Client Platform Firmware Profile 1.06, section 10.4 and table 27).
 */
import { hash } from 'node:crypto'
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { equalBytes } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import type { TpmEvent } from '../parse/event-log.ts'
import { eventTypeName } from '../parse/event-types.ts'
import { parseUefiVariable } from '../parse/uefi-events.ts'

/** Types whose digest is that of their data. */
const WHOLE: ReadonlySet<string> = new Set([
  'EV_ACTION',
  'EV_S_CRTM_VERSION',
  'EV_EFI_ACTION',
  'EV_EFI_VARIABLE_DRIVER_CONFIG',
  'EV_EFI_VARIABLE_BOOT2',
  'EV_EFI_VARIABLE_AUTHORITY',
  'EV_EFI_GPT_EVENT',
  'EV_OMIT_BOOT_DEVICE_EVENTS',
])

/** What GRUB writes before the text that it measures into PCR 8; older builds without a colon. */
const GRUB_PREFIXES: readonly string[] = [
  'grub_cmd: ',
  'kernel_cmdline: ',
  'module_cmdline: ',
  'grub_cmd ',
  'grub_kernel_cmdline ',
]
const GRUB_PCR = 8
/** H(00000001): firmware could not measure something, and the data says why (section 10.4.1). */
const SEPARATOR_ERROR = Uint8Array.of(1, 0, 0, 0)
const SEPARATORS: readonly Uint8Array[] = [new Uint8Array(4), new Uint8Array(4).fill(0xff)]
/** PCRs whose separators and actions divide what firmware did from what others did. */
const MARKED_PCRS: readonly number[] = [4, 5, 7]
const ACTIONS: readonly string[] = [
  'Calling EFI Application from Boot Option',
  'Returning from EFI Application from Boot Option',
  'Exit Boot Services Invocation',
  'Exit Boot Services Returned with Success',
  'Exit Boot Services Returned with Failure',
]

export type MeasuredData =
  /** The data was measured. */
  | 'measured'
  /** A separator that stands for a failure of the firmware. */
  | 'error'
  /** The data should be what was measured, and is not. */
  | 'other'
  /** The type's data is only a comment. */
  | 'comment'

export function measuredData(event: TpmEvent, bank: HashAlgorithm): MeasuredData {
  const measured = event.digests[bank]
  if (measured === undefined) return 'comment'
  const digest = Buffer.from(measured).toString('hex')
  const marks = marksOf(bank)
  const name = eventTypeName(event.type)
  if (name === 'EV_SEPARATOR') {
    if (digest === marks.error) return 'error'
    const known = SEPARATORS.findIndex((data) => equalBytes(data, event.data))
    return known >= 0 && digest === marks.separators[known] ? 'measured' : 'other'
  }
  // Types are not measured: an event that hides as another one is known by its digest.
  if (MARKED_PCRS.includes(event.pcr)) {
    if (marks.separators.includes(digest)) return 'other'
    if (name !== 'EV_EFI_ACTION' && marks.actions.includes(digest)) return 'other'
  }
  const candidates = candidatesOf(event)
  if (candidates === undefined) return 'comment'
  return candidates.some((data) => hash(bank, data) === digest) ? 'measured' : 'other'
}

interface Marks {
  readonly error: string
  readonly separators: readonly string[]
  readonly actions: readonly string[]
}

/** Digests of what divides a boot into its parts, hex; made once for each bank. */
const MARKS = new Map<HashAlgorithm, Marks>()

function marksOf(bank: HashAlgorithm): Marks {
  const made = MARKS.get(bank) ?? {
    error: hash(bank, SEPARATOR_ERROR),
    separators: SEPARATORS.map((data) => hash(bank, data)),
    actions: ACTIONS.map((text) => hash(bank, text)),
  }
  MARKS.set(bank, made)
  return made
}

/** The GRUB command or command line of an event in PCR 8, without what GRUB writes around it; undefined for other events. */
export function grubText(event: TpmEvent): { readonly prefix: string; readonly text: string } | undefined {
  if (event.pcr !== GRUB_PCR) return undefined
  const written = Buffer.from(event.data).toString('latin1').replace(/\0$/, '')
  const prefix = GRUB_PREFIXES.find((candidate) => written.startsWith(candidate))
  if (prefix === undefined) return undefined
  return { prefix, text: Buffer.from(written.slice(prefix.length), 'latin1').toString('utf8') }
}

function candidatesOf(event: TpmEvent): readonly Uint8Array[] | undefined {
  const name = eventTypeName(event.type)
  const grub = grubText(event)
  if (grub !== undefined) {
    const start = grub.prefix.length
    const end = event.data.at(-1) === 0 ? event.data.length - 1 : event.data.length
    return [event.data.subarray(start, end), event.data.subarray(start)]
  }
  // Some firmware measures the value alone, though it logs the whole variable.
  if (name === 'EV_EFI_VARIABLE_BOOT') return [event.data, ...variableValue(event.data)]
  // shim before 15.5 logs one byte more than it measures.
  if (name === 'EV_EFI_VARIABLE_AUTHORITY') return [event.data, event.data.subarray(0, -1)]
  return WHOLE.has(name) ? [event.data] : undefined
}

function variableValue(data: Uint8Array): Uint8Array[] {
  try {
    return [parseUefiVariable(data).value]
  } catch (error) {
    if (error instanceof MalformedError) return []
    throw error
  }
}
