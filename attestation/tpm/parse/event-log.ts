/**
 * The firmware's event log: bytes to events. Three writers, one reader:
 *
 * - crypto-agile TPM logs (TCG PC Client Platform Firmware Profile 1.06, section 10.2), whose first record names the banks;
 * - older TPM logs that know SHA-1 alone (section 10.2.1), with or without a header;
 * - confidential-computing logs (UEFI 2.10 section 38.4.1, ACPI table CCEL): the crypto-agile form, where `pcr` is the
 *   measurement register: 0 the build-time one, 1 to 4 the run-time ones.
 *
 * The log is unauthenticated: it says nothing until it replays to attested registers (`../verify/replay.ts`).
 * Little-endian, unlike everything else of the TPM.
 */
import { ByteReader } from '#protocol/byte-reader'
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { MalformedError } from '#protocol/errors'
import { inOneGo, STEP_ITEMS, type Steps } from '../../evidence/steps.ts'
import { HASH_BYTES } from './algorithms.ts'
import { EventLogError } from './event-log-error.ts'
import { readLogHeader } from './event-log-header.ts'

export { EventLogError }

export const MAX_EVENT_LOG_BYTES: number = 1024 * 1024
export const MAX_EVENTS = 4096
export const MAX_EVENT_BYTES: number = 256 * 1024

const PCR_COUNT = 24
const EV_NO_ACTION = 3
const EV_EFI_HCRTM_EVENT = 0x8000_0010
const HCRTM_LOCALITY = 4
const STARTUP_LOCALITY = 'StartupLocality\0'
const SHA1_FIELD = 20
/** Fewer bytes are a record that was cut: one for PCR 0 begins with four of them. */
const MIN_PADDING = 8

const BANKS: Readonly<Record<number, HashAlgorithm>> = { 4: 'sha1', 11: 'sha256', 12: 'sha384', 13: 'sha512' }

export interface TpmEvent {
  /** Or measurement register, in confidential-computing logs. */
  readonly pcr: number
  readonly type: number
  /** One digest for each bank of the log that is known here. */
  readonly digests: Readonly<Partial<Record<HashAlgorithm, Uint8Array>>>
  readonly data: Uint8Array
}

export interface EventLog {
  readonly format: 'crypto-agile' | 'sha1'
  readonly banks: readonly HashAlgorithm[]
  /** Without the header and other EV_NO_ACTION records, which extend nothing. */
  readonly events: readonly TpmEvent[]
  /** Locality of TPM2_Startup, 4 after a hardware measurement: the last byte PCR 0 begins with. */
  readonly startupLocality: number
  /** Unused bytes of the log's area behind the last event, all zero or all ff. */
  readonly padding: number
}

interface Bank {
  readonly id: number
  readonly size: number
}

const SHA1_ONLY: readonly Bank[] = [{ id: 4, size: SHA1_FIELD }]

/** Throws `EventLogError`. */
export function parseEventLog(bytes: Uint8Array): EventLog {
  return inOneGo(eventLogSteps(bytes))
}

/** Throws as `parseEventLog`, at whichever step. */
export function* eventLogSteps(bytes: Uint8Array): Steps<EventLog> {
  if (bytes.length > MAX_EVENT_LOG_BYTES) {
    throw new EventLogError('ERR_EVENT_LOG_LIMIT', `event log of ${bytes.length} bytes, limit ${MAX_EVENT_LOG_BYTES}`)
  }
  if (bytes.length === 0) {
    throw new EventLogError('ERR_EVENT_LOG_HEADER', 'the event log is empty', {
      hint: 'Check that the kernel exports the log (CONFIG_TCG_TPM, securityfs).',
    })
  }
  const paddingAt = startOfPadding(bytes)
  const reader = new ByteReader(bytes, 'event log')
  try {
    return yield* readLog(reader, paddingAt)
  } catch (error) {
    if (error instanceof EventLogError || !(error instanceof MalformedError)) throw error
    throw new EventLogError('ERR_EVENT_LOG_RECORD', error.message, { cause: error })
  }
}

function* readLog(reader: ByteReader, paddingAt: number): Steps<EventLog> {
  const first = readSha1Record(reader)
  const header = first.type === EV_NO_ACTION ? readLogHeader(first.data) : undefined
  const agile = header?.form === 'crypto-agile'
  if (agile && first.digests.sha1?.some((byte) => byte !== 0) === true) {
    throw new EventLogError('ERR_EVENT_LOG_HEADER', 'the header of the event log has a digest')
  }
  const banks = agile ? header.banks : SHA1_ONLY
  for (const { id, size } of banks) checkBank(banks, id, size)
  const readRecord = agile ? (from: ByteReader) => readEvent(from, banks) : readSha1Record
  const events: TpmEvent[] = []
  let startupLocality: number | undefined
  let measuredPcr0 = false
  const keep = (event: TpmEvent): void => {
    if (event.type !== EV_NO_ACTION) {
      events.push(event)
      measuredPcr0 ||= event.pcr === 0
      return
    }
    // Section 10.4.5.3: it comes before anything is measured into PCR 0, and later ones change nothing.
    if (event.pcr !== 0 || measuredPcr0) return
    startupLocality = readStartupLocality(event) ?? startupLocality
  }
  if (!agile) keep(first)
  let records = 0
  while (reader.remaining > 0 && (reader.offset < paddingAt || reader.remaining < MIN_PADDING)) {
    if (++records > MAX_EVENTS) throw new EventLogError('ERR_EVENT_LOG_LIMIT', `more than ${MAX_EVENTS} events`)
    keep(readRecord(reader))
    if (records % STEP_ITEMS === 0) yield
  }
  return {
    format: agile ? 'crypto-agile' : 'sha1',
    banks: banks.flatMap(({ id }) => BANKS[id] ?? []),
    events,
    startupLocality: startupLocality ?? (beganWithHcrtm(events) ? HCRTM_LOCALITY : 0),
    padding: reader.remaining,
  }
}

/** A hardware measurement before TPM2_Startup leaves PCR 0 as Startup at locality 4 does (TPM 2.0 part 1, section 34.3). */
function beganWithHcrtm(events: readonly TpmEvent[]): boolean {
  return events.find(({ pcr }) => pcr === 0)?.type === EV_EFI_HCRTM_EVENT
}

/**
 * Where the tail of equal bytes, 00 or ff, begins: a log that was copied with the whole of its ACPI area ends so. A record
 * that starts there has no digest (00: a count of none) or no register (ff), so nothing measured is passed over.
 */
function startOfPadding(bytes: Uint8Array): number {
  const last = bytes.at(-1)
  if (last !== 0 && last !== 0xff) return bytes.length
  let start = bytes.length
  while (start > 0 && bytes[start - 1] === last) start--
  return start
}

/** TCG_PCR_EVENT: the first record of every log, and all records of logs that know SHA-1 alone. */
function readSha1Record(reader: ByteReader): TpmEvent {
  const at = reader.offset
  const pcr = reader.u32le()
  const type = reader.u32le()
  if (pcr >= PCR_COUNT && type !== EV_NO_ACTION) {
    throw new EventLogError('ERR_EVENT_LOG_RECORD', `event at byte ${at} is for PCR ${pcr}`)
  }
  const sha1 = reader.bytes(SHA1_FIELD)
  return { pcr, type, digests: { sha1 }, data: readData(reader, at) }
}

function checkBank(banks: readonly Bank[], id: number, size: number): void {
  const known = BANKS[id]
  const wanted = known === undefined ? undefined : HASH_BYTES[known]
  if ((wanted !== undefined && size !== wanted) || size === 0 || size > 128) {
    throw new EventLogError('ERR_EVENT_LOG_HEADER', `bank 0x${id.toString(16)} with digests of ${size} bytes`)
  }
  if (banks.filter((bank) => bank.id === id).length > 1) {
    throw new EventLogError('ERR_EVENT_LOG_HEADER', `bank 0x${id.toString(16)} is listed twice`)
  }
}

/** TCG_PCR_EVENT2. */
function readEvent(reader: ByteReader, banks: readonly Bank[]): TpmEvent {
  const at = reader.offset
  const pcr = reader.u32le()
  const type = reader.u32le()
  // EV_NO_ACTION records may name PCR 0xffffffff: they extend nothing.
  if (pcr >= PCR_COUNT && type !== EV_NO_ACTION) {
    throw new EventLogError('ERR_EVENT_LOG_RECORD', `event at byte ${at} is for PCR ${pcr}`)
  }
  const count = reader.u32le()
  if (count !== banks.length) {
    throw new EventLogError(
      'ERR_EVENT_LOG_RECORD',
      `event at byte ${at} has ${count} digests, the log has ${banks.length} banks`,
    )
  }
  const digests: Partial<Record<HashAlgorithm, Uint8Array>> = {}
  const seen = new Set<number>()
  for (let index = 0; index < count; index++) {
    const id = reader.u16le()
    const bank = banks.find((candidate) => candidate.id === id)
    if (bank === undefined || seen.has(id)) {
      throw new EventLogError('ERR_EVENT_LOG_RECORD', `event at byte ${at}: unexpected bank 0x${id.toString(16)}`)
    }
    seen.add(id)
    const digest = reader.bytes(bank.size)
    const name = BANKS[id]
    if (name !== undefined) digests[name] = digest
  }
  return { pcr, type, digests, data: readData(reader, at) }
}

/** @param at where the event begins */
function readData(reader: ByteReader, at: number): Uint8Array {
  const size = reader.u32le()
  if (size > MAX_EVENT_BYTES) {
    throw new EventLogError('ERR_EVENT_LOG_LIMIT', `event at byte ${at} has ${size} bytes, limit ${MAX_EVENT_BYTES}`)
  }
  return reader.bytes(size)
}

function readStartupLocality(event: TpmEvent): number | undefined {
  if (event.data.length !== STARTUP_LOCALITY.length + 1) return undefined
  const signature = String.fromCharCode(...event.data.subarray(0, STARTUP_LOCALITY.length))
  return signature === STARTUP_LOCALITY ? event.data[STARTUP_LOCALITY.length] : undefined
}
