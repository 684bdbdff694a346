/**
 * The firmware's event log in crypto-agile form (TCG PC Client Platform Firmware Profile 1.05, section 10.2), or in the
 * older form that knows SHA-1 alone: bytes to events. The log is unauthenticated: it says nothing until it replays to quoted PCRs (`../verify/replay.ts`).
 *
 * Little-endian, unlike everything else of the TPM.
 */
import { ByteReader } from '#protocol/byte-reader'
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { MalformedError } from '#protocol/errors'
import { HASH_BYTES } from './algorithms.ts'

export type EventLogErrorCode = 'ERR_EVENT_LOG_HEADER' | 'ERR_EVENT_LOG_LIMIT' | 'ERR_EVENT_LOG_RECORD'

/** Every way in which a log is not a log, truncation included. */
export class EventLogError extends MalformedError {}

export const MAX_EVENT_LOG_BYTES: number = 1024 * 1024
export const MAX_EVENTS = 4096
export const MAX_EVENT_BYTES: number = 256 * 1024

const PCR_COUNT = 24
const EV_NO_ACTION = 3
const SPEC_ID = 'Spec ID Event03\0'
const STARTUP_LOCALITY = 'StartupLocality\0'
const MAX_BANKS = 8
const SHA1_FIELD = 20

const BANKS: Readonly<Record<number, HashAlgorithm>> = { 4: 'sha1', 11: 'sha256', 12: 'sha384', 13: 'sha512' }

export interface TpmEvent {
  readonly pcr: number
  readonly type: number
  /** One digest for each bank of the log that is known here. */
  readonly digests: Readonly<Partial<Record<HashAlgorithm, Uint8Array>>>
  readonly data: Uint8Array
}

export interface EventLog {
  readonly banks: readonly HashAlgorithm[]
  /** Without the header and other EV_NO_ACTION records, which extend nothing. */
  readonly events: readonly TpmEvent[]
  /** Locality of TPM2_Startup: the last byte PCR 0 begins with. */
  readonly startupLocality: number
}

interface Bank {
  readonly id: number
  readonly size: number
}

const SHA1_ONLY: readonly Bank[] = [{ id: 4, size: SHA1_FIELD }]

/** Throws `EventLogError`. */
export function parseEventLog(bytes: Uint8Array): EventLog {
  if (bytes.length > MAX_EVENT_LOG_BYTES) {
    throw new EventLogError('ERR_EVENT_LOG_LIMIT', `event log of ${bytes.length} bytes, limit ${MAX_EVENT_LOG_BYTES}`)
  }
  const reader = new ByteReader(bytes, 'event log')
  try {
    return readLog(reader)
  } catch (error) {
    if (error instanceof EventLogError || !(error instanceof MalformedError)) throw error
    throw new EventLogError('ERR_EVENT_LOG_RECORD', error.message, { cause: error })
  }
}

function readLog(reader: ByteReader): EventLog {
  const first = readSha1Record(reader)
  const header = first.type === EV_NO_ACTION ? first : undefined
  const banks = header === undefined ? SHA1_ONLY : readHeader(header)
  const readRecord = header === undefined ? readSha1Record : (from: ByteReader) => readEvent(from, banks)
  const events: TpmEvent[] = header === undefined ? [first] : []
  let startupLocality = 0
  let records = 0
  while (reader.remaining > 0) {
    if (++records > MAX_EVENTS) throw new EventLogError('ERR_EVENT_LOG_LIMIT', `more than ${MAX_EVENTS} events`)
    const event = readRecord(reader)
    if (event.type !== EV_NO_ACTION) {
      events.push(event)
      continue
    }
    startupLocality = readStartupLocality(event) ?? startupLocality
  }
  const known = banks.flatMap(({ id }) => BANKS[id] ?? [])
  return { banks: known, events, startupLocality }
}

/** TCG_PCR_EVENT: the first record of every log, and all records of logs that know SHA-1 alone. */
function readSha1Record(reader: ByteReader): TpmEvent {
  const at = reader.offset
  if (at === 0 && reader.remaining === 0) {
    throw new EventLogError('ERR_EVENT_LOG_HEADER', 'the event log is empty', {
      hint: 'Check that the kernel exports the log (CONFIG_TCG_TPM, securityfs).',
    })
  }
  const pcr = reader.u32le()
  const type = reader.u32le()
  if (pcr >= PCR_COUNT) throw new EventLogError('ERR_EVENT_LOG_RECORD', `event at byte ${at} is for PCR ${pcr}`)
  const sha1 = reader.bytes(SHA1_FIELD)
  return { pcr, type, digests: { sha1 }, data: readData(reader, at) }
}

/** TCG_EfiSpecIDEvent: tells the banks and their digest sizes. */
function readHeader(record: TpmEvent): Bank[] {
  if (record.pcr !== 0 || record.digests.sha1?.some((byte) => byte !== 0) === true) {
    throw new EventLogError('ERR_EVENT_LOG_HEADER', 'the event log’s first record is neither a header nor an event')
  }
  const header = new ByteReader(record.data, 'Spec ID event')
  if (ascii(header.bytes(SPEC_ID.length)) !== SPEC_ID) {
    throw new EventLogError('ERR_EVENT_LOG_HEADER', 'event log header is not "Spec ID Event03"')
  }
  header.skip(4 + 1 + 1 + 1 + 1) // platformClass, minor, major, errata, uintnSize
  const count = header.u32le()
  if (count === 0 || count > MAX_BANKS) {
    throw new EventLogError('ERR_EVENT_LOG_HEADER', `event log of ${count} banks, 1 to ${MAX_BANKS} are read`)
  }
  const banks = Array.from({ length: count }, () => ({ id: header.u16le(), size: header.u16le() }))
  for (const { id, size: digestSize } of banks) checkBank(banks, id, digestSize)
  header.skip(header.u8())
  header.end()
  return banks
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
  if (ascii(event.data.slice(0, STARTUP_LOCALITY.length)) !== STARTUP_LOCALITY) return undefined
  return event.data[STARTUP_LOCALITY.length]
}

function ascii(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join('')
}
