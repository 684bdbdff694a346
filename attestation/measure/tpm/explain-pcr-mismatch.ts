/**
 * Why a PCR is not what was predicted: the first event that differs, and what that means. The event log must have been
 * replayed to the quoted PCRs before; what its data says beyond the digests remains a hint.
 */

import { createHash } from 'node:crypto'
import { toHex } from '#protocol/encoding'
import { describeEvent } from '../../tpm/parse/describe-event.ts'
import type { EventLog } from '../../tpm/parse/event-log.ts'
import { eventTypeName } from '../../tpm/parse/event-types.ts'
import { loadOptions } from './linux-boot.ts'
import type { PredictedEvent } from './predict-pcrs.ts'
import { differingToken, recogniseCommandLine } from './recognise-command-line.ts'

export interface PcrExplanation {
  readonly pcr: number
  /** One sentence. */
  readonly message: string
  readonly expected: string
  readonly found: string
  readonly remedy: string
}

export interface ExplainInput {
  readonly pcr: number
  readonly predicted: readonly PredictedEvent[]
  readonly log: EventLog
  /** Quoted value, hex. */
  readonly found: string
  readonly commandLine?: {
    readonly predicted: string
    /** What the guest says it is, if it says so: believed only when its digest is the measured one. */
    readonly reported?: string
    /** Lines of other guests, which are tried. */
    readonly known?: readonly string[]
  }
}

const INITDATA_PCR = 8
const COMMAND_LINE_PCR = 9

export function explainPcrMismatch(input: ExplainInput): PcrExplanation {
  if (input.pcr === INITDATA_PCR) return explainInitdata(input)
  const predicted = input.predicted.filter(({ pcr }) => pcr === input.pcr)
  const measured = input.log.events
    .filter(({ pcr }) => pcr === input.pcr)
    .map((event) => ({
      type: eventTypeName(event.type),
      description: describeEvent(event.type, event.data),
      digest: toHex(event.digests.sha256 ?? new Uint8Array()),
    }))
  const index = firstDifference(predicted, measured)
  const wanted = predicted[index]
  const got = measured[index]
  if (wanted === undefined || got === undefined) {
    return {
      pcr: input.pcr,
      message: `PCR ${input.pcr} (${subject(input.pcr)}) has ${measured.length} events, predicted were ${predicted.length}`,
      expected: wanted === undefined ? 'no further event' : `${wanted.type}: ${wanted.description}`,
      found: got === undefined ? 'no further event' : `${got.description}, ${got.digest}`,
      remedy: remedy(input.pcr),
    }
  }
  return {
    pcr: input.pcr,
    message: difference(input, wanted),
    expected: `${wanted.type} ${wanted.digest} (${wanted.description})`,
    found: `${got.type} ${got.digest} (${got.description})`,
    remedy: remedy(input.pcr),
  }
}

function firstDifference(predicted: readonly { digest: string }[], measured: readonly { digest: string }[]): number {
  const index = predicted.findIndex(({ digest }, position) => measured[position]?.digest !== digest)
  return index === -1 ? predicted.length : index
}

/** Runtime extends are not in the firmware's log, so the value is all there is. */
function explainInitdata(input: ExplainInput): PcrExplanation {
  const wanted = input.predicted.find(({ pcr }) => pcr === INITDATA_PCR)
  const untouched = /^0+$/.test(input.found)
  return {
    pcr: INITDATA_PCR,
    message: untouched
      ? 'no initdata was measured: PCR 8 was never extended'
      : 'the initdata that the guest measured is not the registered one',
    expected: `extended once with ${wanted?.digest ?? 'the registered initdata'}`,
    found: input.found,
    remedy: remedy(INITDATA_PCR),
  }
}

function difference(input: ExplainInput, wanted: PredictedEvent): string {
  switch (input.pcr) {
    case 0:
      return wanted.description.startsWith('PEI volume')
        ? `the firmware differs, or the machine’s shape does: predicted was the ${wanted.description}`
        : `the firmware differs: ${wanted.description}`
    case 4:
      return wanted.type === 'EV_EFI_BOOT_SERVICES_APPLICATION'
        ? 'another kernel image was started'
        : `the boot took another path: predicted was "${wanted.description}"`
    case 7:
      return `the secure-boot state differs: ${wanted.description}`
    case COMMAND_LINE_PCR:
      return commandLineDifference(input)
    default:
      return `PCR ${input.pcr} (${subject(input.pcr)}) differs at: ${wanted.description}`
  }
}

function commandLineDifference(input: ExplainInput): string {
  const { commandLine, log } = input
  const measured = log.events.find(({ pcr }) => pcr === COMMAND_LINE_PCR)?.digests.sha256
  if (commandLine === undefined || measured === undefined) return 'the kernel command line differs'
  const { predicted, known = [], reported } = commandLine
  if (reported === undefined) {
    const digestOf = (line: string): string => createHash('sha256').update(loadOptions(line)).digest('hex')
    const booted = recogniseCommandLine({ predicted, known, isMeasured: (line) => digestOf(line) === toHex(measured) })
    return booted === undefined ? 'the kernel command line differs' : differingToken(predicted, booted)
  }
  // A command line that cannot be load options is not the one that was measured.
  if (!/^[\x20-\x7e]{0,2046}$/.test(reported) || /(?:^|\s)vga=/.test(reported)) return 'the kernel command line differs'
  const digest = createHash('sha256').update(loadOptions(reported)).digest('hex')
  if (digest !== toHex(measured)) return 'the kernel command line differs, and is not what the guest says it is'
  return differingToken(predicted, reported)
}

function subject(pcr: number): string {
  return (
    { 0: 'firmware', 2: 'option ROMs', 4: 'kernel', 7: 'secure-boot state', 8: 'initdata', 9: 'kernel command line' }[
      pcr
    ] ?? 'other measurements'
  )
}

function remedy(pcr: number): string {
  const remedies: Readonly<Record<number, string>> = {
    0: 'Measure again with the firmware file and the number of CPUs that are used, if you trust them.',
    2: 'A device brought an option ROM: start devices with romfile= (empty).',
    4: 'Measure again with the kernel file that is used, if you trust it.',
    7: 'Start the firmware with -bios and without a variable store.',
    8: 'Register reference values for this initdata, or start the guest with the registered one.',
    9: 'Measure again with the command line of the guest image that is used; it names the root filesystem’s hash.',
  }
  return remedies[pcr] ?? 'Look at the event log to see what was measured.'
}
