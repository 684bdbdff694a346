import test from 'ava'
import fc from 'fast-check'
import { encodeReasonReport, MAX_REPORT_BYTES, parseReasonReport, type ReasonReport } from '#protocol/reason-report'
import { altered, refusesOrKeeps } from '../parser-property.ts'

const text = fc.string({ unit: 'binary', maxLength: 200 }).map((value) => value.toWellFormed())
const REPORT: fc.Arbitrary<ReasonReport> = fc.record({
  correlationId: fc.stringMatching(/^[0-9a-f]{16}$/),
  code: fc.constant('ERR_POLICY_DENIED'),
  subject: text,
  message: text,
  hint: fc.option(text, { nil: undefined }),
  denial: fc.option(fc.record({ field: text, allowed: text, asked: text }), { nil: undefined }),
  request: fc.option(text, { nil: undefined }),
})
const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

test('a report reads back as it was written, and its length is one of a few', (t) => {
  fc.assert(
    fc.property(REPORT, (report) => {
      const bytes = encodeReasonReport(report)
      t.is(bytes.byteLength % 4096, 0)
      t.deepEqual(parseReasonReport(decode(bytes)), report)
    }),
  )
})

test('texts that are too long are cut, a request that is too long is left out, and the rest still arrives', (t) => {
  const long = '\u{1f512}'.repeat(100_000)
  const report = { correlationId: 'a'.repeat(16), code: 'ERR_X', subject: long, message: long, hint: long }
  const denial = { field: long, allowed: long, asked: long }
  for (const request of [long, '\u{1f512}'.repeat(16_000)]) {
    const bytes = encodeReasonReport({ ...report, denial, request })
    t.true(bytes.byteLength <= MAX_REPORT_BYTES)
    t.regex(parseReasonReport(decode(bytes)).message, /^\u{1f512}{1000}/u)
  }
})

test('whatever somebody sends as a report is read or refused', (t) => {
  const whole = {
    id: 'a'.repeat(16),
    code: 'ERR_X',
    subject: 's',
    message: 'm',
    hint: 'h',
    denial: { field: 'f', allowed: 'a', asked: 'b' },
    request: '{}',
  }
  refusesOrKeeps(
    t,
    altered(whole),
    (value) => parseReasonReport(JSON.stringify(value)),
    ({ correlationId, code }) => /^[0-9a-f]{16}$/.test(correlationId) && /^ERR_[A-Z0-9_]+$/.test(code),
  )
})
