/** The firmware's log that comes with a quote must be the one that its registers were extended with. */
import { createHash } from 'node:crypto'
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

test('what an earlier agent says that it measured at run time must lead to RTMR3', (t) => {
  const lines = ['INIT sha384/'.padEnd(108, '0'), 'cc image-pull docker.io/library/busybox', 'cc start {"id":"1"}']
  let value = Buffer.alloc(48)
  for (const line of lines) {
    const digest = createHash('sha384').update(line).digest()
    value = createHash('sha384').update(value).update(digest).digest()
  }
  const evidenceOf = (text: string, register: Uint8Array, withLog = true): string =>
    JSON.stringify({
      quote: toBase64(quote({ td: { rtmrs: rtmrs.with(3, register) } })),
      cc_eventlog: withLog ? toBase64(log) : null,
      aa_eventlog: text,
    })
  const text = `${lines.join('\n')}\n`
  t.is(judge({ evidence: evidenceOf(text, value) }).verdict, 'affirming')
  t.is(judge({ evidence: evidenceOf(text, value, false) }).verdict, 'affirming')
  for (const other of [
    text.replace('busybox', 'nginx'),
    lines.slice(0, 2).join('\n'),
    text.replace('384/0', '384/1'),
  ]) {
    const verdict = judge({ evidence: evidenceOf(other, value) })
    t.is(verdict.verdict, 'contraindicated')
    t.deepEqual(codes(verdict), ['event_log_mismatch'])
  }
  t.throws(() => judge({ evidence: evidenceOf('cc start', value) }), { code: 'ERR_RUNTIME_LOG' })
})
