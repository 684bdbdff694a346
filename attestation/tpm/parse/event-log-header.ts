/**
 * The data of an event log's first record: TCG_EfiSpecIDEvent (PC Client Platform Firmware Profile 1.06, section 10.4.5.1)
 * with the banks of a crypto-agile log, or the header of one of the older logs, whose records have SHA-1 alone.
 */
import { ByteReader } from '#protocol/byte-reader'
import { EventLogError } from './event-log-error.ts'

const AGILE = 'Spec ID Event03\0'
/** Conventional BIOS (TPM 1.2), and TCG EFI Platform Specification 1.22. */
const OLDER: readonly string[] = ['Spec ID Event00\0', 'Spec ID Event02\0']
const SIGNATURE_BYTES = 16
/** A shorter one cannot be a crypto-agile log's. */
const MIN_AGILE_BYTES = 28
const MAX_BANKS = 8

export type LogHeader =
  | { readonly form: 'sha1' }
  | { readonly form: 'crypto-agile'; readonly banks: readonly { readonly id: number; readonly size: number }[] }

/** @param data of an EV_NO_ACTION record. Throws `EventLogError` ERR_EVENT_LOG_HEADER, `MalformedError` ERR_TRUNCATED. */
export function readLogHeader(data: Uint8Array): LogHeader {
  const signature = String.fromCharCode(...data.subarray(0, SIGNATURE_BYTES))
  if (signature !== AGILE) {
    // A log of SHA-1 alone may begin with any note, such as the locality of the start-up.
    if (OLDER.includes(signature) || data.length < MIN_AGILE_BYTES) return { form: 'sha1' }
    throw new EventLogError('ERR_EVENT_LOG_HEADER', 'event log header is not "Spec ID Event03"')
  }
  const header = new ByteReader(data, 'Spec ID event')
  header.skip(SIGNATURE_BYTES + 4) // platformClass
  const minor = header.u8()
  const major = header.u8()
  if (major !== 2 || minor !== 0) {
    throw new EventLogError('ERR_EVENT_LOG_HEADER', `event log of specification ${major}.${minor}, 2.0 is read`)
  }
  header.skip(1 + 1) // errata, uintnSize
  const count = header.u32le()
  if (count === 0 || count > MAX_BANKS) {
    throw new EventLogError('ERR_EVENT_LOG_HEADER', `event log of ${count} banks, 1 to ${MAX_BANKS} are read`)
  }
  const banks = Array.from({ length: count }, () => ({ id: header.u16le(), size: header.u16le() }))
  header.skip(header.u8()) // vendorInfo
  header.end()
  return { form: 'crypto-agile', banks }
}
