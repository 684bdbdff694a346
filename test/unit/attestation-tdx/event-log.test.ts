/** The firmware's log that comes with a quote must be the one that its registers were extended with. */
import { readFileSync } from 'node:fs'
import test from 'ava'
import { replayRtmrs } from '#attestation/tdx/evaluate/event-log'
import { parseEventLog } from '#attestation/tpm/parse/event-log'
import { toBase64 } from '#protocol/encoding'
import { codes, judge, quote } from '../../fixtures/tdx/platform.ts'

const log = new Uint8Array(
  readFileSync(new URL('../../vectors/tdx/trustee/deps/eventlog/test_data/CCEL_data_ovmf', import.meta.url)),
)
const rtmrs = replayRtmrs(parseEventLog(log))

/** CoCo's evidence of a TD whose registers are these. */
function evidence(registers: readonly Uint8Array[], eventLog: Uint8Array = log): string {
  return JSON.stringify({ quote: toBase64(quote({ td: { rtmrs: registers } })), cc_eventlog: toBase64(eventLog) })
}

const changed = (register: number): Uint8Array[] =>
  rtmrs.map((value, index) => (index === register ? new Uint8Array(48).fill(9) : value))

test('a log that replays to the registers of the quote takes nothing from the verdict', (t) => {
  const verdict = judge({ evidence: evidence(rtmrs) })
  t.is(verdict.verdict, 'affirming')
  t.true(Array.isArray(verdict.claims.events) && verdict.claims.events.length === parseEventLog(log).events.length)
})

test('a log that does not replay to a register is refused, and the register is named', (t) => {
  for (const register of [0, 1, 2]) {
    const verdict = judge({ evidence: evidence(changed(register)) })
    t.is(verdict.verdict, 'contraindicated')
    t.deepEqual(codes(verdict), ['event_log_mismatch'])
    t.true(verdict.reasons[0]?.message.includes(`RTMR${register}`))
  }
})

test('a register that is extended at run time and that the log does not speak of is no more than a warning', (t) => {
  const verdict = judge({ evidence: evidence(changed(3)) })
  t.is(verdict.verdict, 'warning')
  t.deepEqual(codes(verdict), ['event_log_incomplete'])
})

test('a log with any digest changed, cut short, or of other banks is refused', (t) => {
  const { events } = parseEventLog(log)
  for (const { digests } of events.slice(0, 5)) {
    const at = Buffer.from(log).indexOf(digests.sha384 ?? new Uint8Array())
    const altered = log.slice()
    altered[at + 7] = (altered[at + 7] ?? 0) ^ 1
    t.deepEqual(codes(judge({ evidence: evidence(rtmrs, altered) })), ['event_log_mismatch'])
  }
  t.throws(() => judge({ evidence: evidence(rtmrs, log.slice(0, 500)) }), { code: 'ERR_EVENT_LOG_RECORD' })
  const legacy = new Uint8Array(
    readFileSync(new URL('../../vectors/tpm/go-eventlog/eventlogs/tpm/ubuntu-1804-amd-sev.bin', import.meta.url)),
  )
  t.deepEqual(codes(judge({ evidence: evidence(rtmrs, legacy) })), ['event_log_mismatch'])
})
