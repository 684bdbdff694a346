/** How evidence of a TD is read, and what is claimed of it. */
import test from 'ava'
import { fromHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { codes, judge, quote } from '../../fixtures/tdx/platform.ts'

test('a quote of a platform that Intel calls up to date is affirmed, in version 4 and 5 and with both bodies', (t) => {
  for (const request of [{ version: 4 }, { version: 5 }, { version: 5, body: 'td-1.5' }] as const) {
    const verdict = judge({ evidence: quote(request) })
    t.deepEqual(codes(verdict), [])
    t.is(verdict.verdict, 'affirming')
    t.is(verdict.claims.report_version, request.version)
    t.is(verdict.claims.tcb_status, 'UpToDate')
  }
})

test('the claims name registers, platform and TCB', (t) => {
  const { claims } = judge({ evidence: quote({ version: 5, body: 'td-1.5' }) })
  t.is(claims.mrtd, '7d'.repeat(48))
  t.is(claims.measurement, claims.mrtd)
  t.is(claims.rtmr2, '03'.repeat(48))
  t.is(claims.report_data, 'd5'.repeat(64))
  t.is(claims.td_attributes, '0000001000000000')
  t.is(claims.xfam, 'e702060000000000')
  t.is(claims.fmspc, '50806f000000')
  t.is(claims.pceid, '0000')
  t.is(claims.pck_ca_type, 'platform')
  t.is(claims.smt_enabled, false)
  t.is(claims.chip_id, '0102030405060708090a0b0c0d0e0f10')
  t.is(claims.tcb_date, '2025-02-12T00:00:00.000Z')
  t.is(claims.debug, false)
  t.is(claims.tee_tcb_svn2, '03000500000000000000000000000000')
})

test('CoCo’s evidence is judged as the quote in it, with and without a log', (t) => {
  const bytes = Buffer.from(quote())
  const shapes: readonly unknown[] = [
    JSON.stringify({ quote: bytes.toString('base64') }),
    { quote: bytes.toString('base64'), cc_eventlog: null },
    { quote: bytes.toString('base64url'), cc_eventlog: '' },
    { quote: bytes.toString('hex') },
    { outblob: bytes.toString('base64'), provider: 'tdx_guest' },
    { quote: [...bytes] },
    new TextEncoder().encode(JSON.stringify({ quote: bytes.toString('base64') })),
  ]
  for (const evidence of shapes) t.is(judge({ evidence }).verdict, 'affirming')
})

test('the padding of a buffer behind the quote is accepted when it is zero, and nothing else is', (t) => {
  t.is(judge({ evidence: quote({ trailing: new Uint8Array(3000) }) }).verdict, 'affirming')
  t.throws(() => judge({ evidence: quote({ trailing: Uint8Array.of(0, 0, 1) }) }), { code: 'ERR_QUOTE' })
})

test('evidence without a quote, and quotes of unknown kinds, are refused with a reason', (t) => {
  for (const evidence of [{}, [], null, 7, '{', { quote: 5 }, { quote: '!' }, { quote: 'AAA=', cc_eventlog: 7 }]) {
    const error = t.throws(() => judge({ evidence }), { instanceOf: MalformedError })
    t.regex(error?.code ?? '', /^ERR_(?:TDX_EVIDENCE|QUOTE)$/)
  }
  const kinds = [
    { header: { keyType: 3 } },
    { header: { teeType: 0x82 } },
    { certification: { type: 6, data: new Uint8Array() } },
    { certification: { type: 8, data: new Uint8Array() } },
  ]
  for (const request of kinds) t.throws(() => judge({ evidence: quote(request) }), { code: 'ERR_QUOTE_UNSUPPORTED' })
  const version = quote()
  version[0] = 6
  t.throws(() => judge({ evidence: version }), { code: 'ERR_QUOTE_UNSUPPORTED' })
  t.throws(() => judge({ evidence: quote({ version: 4, body: 'sgx' }) }), { code: 'ERR_QUOTE_UNSUPPORTED' })
  t.throws(() => judge({ evidence: fromHex('04000200', 'quote') }), { code: 'ERR_QUOTE' })
})
