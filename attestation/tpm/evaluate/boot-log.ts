/**
 * What an event log adds to quoted PCRs: whether it replays to them, and what it says of the boot where it does. Only events
 * of PCRs that replay are heard, and their data only where it was measured.
 */
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { concatBytes, equalBytes, toHex } from '#protocol/encoding'
import { nodeCrypto } from '#protocol/node/crypto'
import type { Claims, Finding } from '../../evidence/verdict.ts'
import { describeEvent } from '../parse/describe-event.ts'
import { describeLog } from '../parse/describe-log.ts'
import type { EventLog, TpmEvent } from '../parse/event-log.ts'
import type { PcrValues } from '../parse/pcr-values.ts'
import { grubText, measuredData } from '../verify/measured-data.ts'
import { initialPcr, replayEventLog } from '../verify/replay.ts'
import { type SecureBootState, secureBootState } from './secure-boot.ts'

export interface BootLogAppraisal {
  readonly claims: Claims
  readonly findings: readonly Finding[]
}

/** Firmware measures at least a separator into each of these: a log without events for them was cut. */
const FIRMWARE_PCRS: readonly number[] = [0, 1, 2, 3, 4, 5, 6, 7]
/** Extended by the running system too, which the firmware's log does not see: IMA, systemd, applications. */
const RUNTIME_PCRS: readonly number[] = [10, 11, 12, 13, 15, 16, 23]
const SECURE_BOOT_PCR = 7
const BOOT_PCR = 4
const EXIT_PCR = 5
const GRUB_PCR = 8
/** One is enough to disbelieve a log; thousands would only hide the others. */
const MAX_DATA_FINDINGS = 16
const STRONGEST_FIRST: readonly HashAlgorithm[] = ['sha512', 'sha384', 'sha256', 'sha1']

export function appraiseBootLog(log: EventLog, quoted: PcrValues): BootLogAppraisal {
  const banks = STRONGEST_FIRST.filter((bank) => log.banks.includes(bank) && (quoted.get(bank)?.size ?? 0) > 0)
  const about = { format: log.format, banks: log.banks }
  if (banks.length === 0) {
    return { claims: { event_log: { ...about, replayed_pcrs: [] } }, findings: [unchecked(log, quoted)] }
  }
  const replays = banks.map((bank) => replayBank(log, bank, quoted.get(bank) ?? new Map()))
  const heard = heardPcrs(replays)
  const data = checkData(log, heard)
  const state = heard.has(SECURE_BOOT_PCR)
    ? secureBootState(data.trusted.filter(({ pcr }) => pcr === SECURE_BOOT_PCR))
    : undefined
  return {
    claims: {
      event_log: { ...about, replayed_pcrs: [...heard.keys()].toSorted((a, b) => a - b) },
      events: describeLog(log),
      secure_boot: state?.known === true ? state.enabled : null,
      ...bootClaims(data, heard),
    },
    findings: [
      ...replays.flatMap((replay) => replay.findings),
      ...data.findings,
      ...(state === undefined ? [] : secureBootFindings(state)),
    ],
  }
}

/** PCRs that replay, and the strongest bank in which they do. */
type HeardPcrs = ReadonlyMap<number, HashAlgorithm>

/** @param replays strongest bank first; a PCR that fails in any of them is not heard at all */
function heardPcrs(replays: readonly BankReplay[]): HeardPcrs {
  const failed = new Set(replays.flatMap(({ failing }) => failing))
  const heard = new Map<number, HashAlgorithm>()
  for (const { bank, matching } of replays) {
    for (const pcr of matching) if (!failed.has(pcr) && !heard.has(pcr)) heard.set(pcr, bank)
  }
  return heard
}

interface BankReplay {
  readonly bank: HashAlgorithm
  readonly findings: readonly Finding[]
  readonly matching: readonly number[]
  readonly failing: readonly number[]
}

function replayBank(log: EventLog, bank: HashAlgorithm, quoted: ReadonlyMap<number, Uint8Array>): BankReplay {
  const replayed = replayEventLog(nodeCrypto, log, bank)
  const findings: Finding[] = []
  const matching: number[] = []
  const failing: number[] = []
  for (const [pcr, value] of quoted) {
    const own = replayed.get(pcr)
    if (own === undefined && !FIRMWARE_PCRS.includes(pcr)) continue
    const expected = own ?? initialPcr(pcr, bank, log.startupLocality)
    if (equalBytes(expected, value) || (pcr === EXIT_PCR && leftBootServices(expected, value, bank))) {
      if (own !== undefined) matching.push(pcr)
    } else {
      failing.push(pcr)
      findings.push(mismatch({ bank, pcr, expected: value, found: expected }))
    }
  }
  return { bank, findings, matching, failing }
}

/**
 * Logs that the kernel did not get the end of lack the events of ExitBootServices, which everybody's firmware measures with the
 * same three texts (PC Client Platform Firmware Profile 1.06, section 8.2.4).
 */
function leftBootServices(replayed: Uint8Array, quoted: Uint8Array, bank: HashAlgorithm): boolean {
  const [invocation, success, failure] = [
    'Exit Boot Services Invocation',
    'Exit Boot Services Returned with Success',
    'Exit Boot Services Returned with Failure',
  ]
  const ways = [
    [invocation, success],
    [invocation, failure],
    [invocation, failure, success],
  ]
  return ways.some((texts) => {
    const digest = (...parts: Uint8Array[]): Uint8Array => nodeCrypto.digest(bank, concatBytes(...parts))
    const end = texts.reduce((pcr, text) => digest(pcr, digest(new TextEncoder().encode(text))), replayed)
    return equalBytes(end, quoted)
  })
}

interface CheckedData {
  /** Of PCRs that replay, without those whose data contradicts the digest. */
  readonly trusted: readonly TpmEvent[]
  /** Those among them whose data was measured. */
  readonly measured: ReadonlySet<TpmEvent>
  readonly findings: readonly Finding[]
}

/** Events whose data may be believed, and findings about those whose data contradicts the digest. */
function checkData(log: EventLog, heard: HeardPcrs): CheckedData {
  const findings: Finding[] = []
  const measured = new Set<TpmEvent>()
  const trusted = log.events.filter((event) => {
    const bank = heard.get(event.pcr)
    if (bank === undefined) return false
    const how = measuredData(event, bank)
    if (how === 'other' && findings.length < MAX_DATA_FINDINGS) findings.push(otherData(event, bank))
    if (how === 'error') findings.push(firmwareError(event))
    if (how === 'measured') measured.add(event)
    return how === 'measured' || how === 'comment'
  })
  return { trusted, measured, findings }
}

/** Types are not measured, and so decide nothing here: what counts is the PCR, the digest, and data that was measured. */
function bootClaims({ trusted, measured }: CheckedData, heard: HeardPcrs): Claims {
  const applications = trusted.filter((event) => event.pcr === BOOT_PCR && !measured.has(event))
  return {
    boot_applications: applications.map(({ digests }) =>
      toHex(digests[heard.get(BOOT_PCR) ?? 'sha256'] ?? new Uint8Array()),
    ),
    kernel_cmdline: grubCommandLine(trusted.filter(({ pcr }) => pcr === GRUB_PCR)),
  }
}

/** Null unless PCR 8 holds nothing but what GRUB says it is: a single other event could hide the command line. */
function grubCommandLine(events: readonly TpmEvent[]): string | null {
  const texts = events.map(grubText)
  if (texts.length === 0 || texts.includes(undefined)) return null
  const lines = texts.flatMap((grub) => (grub?.prefix.includes('kernel_cmdline') === true ? [grub.text] : []))
  return lines.length === 0 ? null : lines.join('\n')
}

function secureBootFindings(state: SecureBootState): Finding[] {
  if (!state.known) {
    return [
      {
        severity: 'warning',
        code: 'secure_boot_undetermined',
        message: `the event log does not show the state of Secure Boot: ${state.why}`,
        remedy: 'Look at the events of PCR 7: firmware measures SecureBoot, PK, KEK, db and dbx, then one separator.',
      },
    ]
  }
  if (!state.debugger) return []
  return [
    {
      severity: 'contraindicated',
      code: 'firmware_debugger',
      message: 'the firmware measured that a debugger was enabled',
      expected: 'no event "UEFI Debug Mode" in PCR 7',
      found: '"UEFI Debug Mode"',
      remedy: 'Disable the firmware debugger and boot again.',
    },
  ]
}

function mismatch(at: { bank: HashAlgorithm; pcr: number; expected: Uint8Array; found: Uint8Array }): Finding {
  const compared = { expected: toHex(at.expected), found: toHex(at.found) }
  if (RUNTIME_PCRS.includes(at.pcr)) {
    return {
      severity: 'warning',
      code: 'event_log_incomplete',
      message: `the event log does not account for PCR ${at.pcr} of ${at.bank}, which the running system extends too`,
      ...compared,
      remedy: 'Compare this PCR with a reference value, or do not quote it.',
    }
  }
  return {
    severity: 'contraindicated',
    code: 'event_log_mismatch',
    message: `the event log does not replay to PCR ${at.pcr} of ${at.bank}`,
    ...compared,
    remedy:
      'The log was changed, is of another boot, or lacks what was measured later. Collect quote and log together.',
  }
}

function otherData(event: TpmEvent, bank: HashAlgorithm): Finding {
  return {
    severity: 'contraindicated',
    code: 'event_data_mismatch',
    message: `the event log says of PCR ${event.pcr} something else than was measured: ${describeEvent(event.type, event.data)}`,
    expected: toHex(event.digests[bank] ?? new Uint8Array()),
    found: toHex(nodeCrypto.digest(bank, event.data)),
    remedy: 'The digest is genuine, its description is not: the log was changed. Do not believe what it says.',
  }
}

function firmwareError(event: TpmEvent): Finding {
  return {
    severity: 'contraindicated',
    code: 'firmware_error',
    message: `the firmware could not measure into PCR ${event.pcr}, and says so in place of the separator`,
    expected: 'a separator of 00000000 or ffffffff',
    found: toHex(event.data.slice(0, 64)),
    remedy: 'Find out from the machine’s maker what the firmware’s error means; what it started was not measured.',
  }
}

function unchecked(log: EventLog, quoted: PcrValues): Finding {
  const banks = [...quoted.keys()].join(', ') || 'none'
  return {
    severity: 'warning',
    code: 'unchecked_event_log',
    message: 'the event log could not be compared with the quote: they have no bank in common',
    expected: banks,
    found: log.banks.join(', '),
    remedy: 'Quote a bank that the firmware logs.',
  }
}
