/** Event log → PCR values (TPM 2.0 part 1, section 17.2). A log counts for those PCRs that it replays to as quoted. */
import type { CryptoProvider, HashAlgorithm } from '#protocol/crypto-provider'
import { equalBytes } from '#protocol/encoding'
import { inOneGo, STEP_ITEMS, type Steps } from '../../evidence/steps.ts'
import { HASH_BYTES } from '../parse/algorithms.ts'
import { type EventLog, EventLogError } from '../parse/event-log.ts'

/** PCRs 17–22 start with ones: they belong to the dynamic root of trust. */
const FIRST_DRTM_PCR = 17
const LAST_DRTM_PCR = 22

export interface ReplayMismatch {
  readonly bank: HashAlgorithm
  readonly pcr: number
  readonly replayed: Uint8Array
  readonly quoted: Uint8Array
}

export function initialPcr(pcr: number, bank: HashAlgorithm, startupLocality = 0): Uint8Array {
  const value = new Uint8Array(HASH_BYTES[bank])
  if (isDynamic(pcr)) value.fill(0xff)
  if (pcr === 0) value[value.length - 1] = startupLocality
  return value
}

export function extendPcr(
  crypto: CryptoProvider,
  bank: HashAlgorithm,
  extension: { readonly pcr: Uint8Array; readonly digest: Uint8Array },
): Uint8Array {
  const { pcr, digest } = extension
  const both = new Uint8Array(pcr.length + digest.length)
  both.set(pcr)
  both.set(digest, pcr.length)
  return crypto.digest(bank, both)
}

/** A log is replayed once, however often it is judged. */
const replayed = new WeakMap<EventLog, Map<HashAlgorithm, ReadonlyMap<number, Uint8Array>>>()

/** Values of all PCRs that the log has events for. Throws `EventLogError` ERR_EVENT_LOG_BANK when the log lacks the bank. */
export function replayEventLog(
  crypto: CryptoProvider,
  log: EventLog,
  bank: HashAlgorithm,
): ReadonlyMap<number, Uint8Array> {
  return replayed.get(log)?.get(bank) ?? inOneGo(replaySteps(crypto, log, bank))
}

/** Throws as `replayEventLog`, at whichever step. */
export function* replaySteps(
  crypto: CryptoProvider,
  log: EventLog,
  bank: HashAlgorithm,
): Steps<ReadonlyMap<number, Uint8Array>> {
  if (!log.banks.includes(bank)) {
    throw new EventLogError('ERR_EVENT_LOG_BANK', `the event log has no ${bank} digests, only ${log.banks.join(', ')}`)
  }
  const pcrs = new Map<number, Uint8Array>()
  for (const [index, event] of log.events.entries()) {
    if (index % STEP_ITEMS === STEP_ITEMS - 1) yield
    const digest = event.digests[bank]
    // The parser wants a digest of every bank in every record; passing one over would make another log of this one.
    if (digest === undefined) throw new EventLogError('ERR_EVENT_LOG_BANK', `an event has no ${bank} digest`)
    const pcr = pcrs.get(event.pcr) ?? firstPcr(event.pcr, bank, log.startupLocality)
    pcrs.set(event.pcr, extendPcr(crypto, bank, { pcr, digest }))
  }
  const banks = replayed.get(log) ?? new Map<HashAlgorithm, ReadonlyMap<number, Uint8Array>>()
  replayed.set(log, banks.set(bank, pcrs))
  return pcrs
}

/** What the first event extends: whoever measures into the PCRs of the dynamic root of trust has reset them to zeros before. */
function firstPcr(pcr: number, bank: HashAlgorithm, startupLocality: number): Uint8Array {
  return initialPcr(isDynamic(pcr) ? 0 : pcr, bank, isDynamic(pcr) ? 0 : startupLocality)
}

function isDynamic(pcr: number): boolean {
  return pcr >= FIRST_DRTM_PCR && pcr <= LAST_DRTM_PCR
}

/**
 * PCRs whose quoted value is not what the log replays to.
 * @param judged PCRs that firmware and kernel log completely; a PCR without events must still have its initial value
 */
export function replayMismatches(
  crypto: CryptoProvider,
  log: EventLog,
  quote: { bank: HashAlgorithm; pcrs: ReadonlyMap<number, Uint8Array>; judged: readonly number[] },
): ReplayMismatch[] {
  const { bank } = quote
  const values = replayEventLog(crypto, log, bank)
  return quote.judged.flatMap((pcr) => {
    const quoted = quote.pcrs.get(pcr)
    const value = values.get(pcr) ?? initialPcr(pcr, bank, log.startupLocality)
    return quoted === undefined || equalBytes(value, quoted) ? [] : [{ bank, pcr, replayed: value, quoted }]
  })
}
