/** What the quote itself says: who signed it, for which nonce, of which TD. */
import { createHash } from 'node:crypto'
import test from 'ava'
import type { Verdict } from '#attestation/evidence/verdict'
import { concatBytes } from '#protocol/encoding'
import { newKey } from '../../fixtures/tdx/intel-pki.ts'
import { codes, collateralFiles, judge, quote } from '../../fixtures/tdx/platform.ts'
import { publicPoint } from '../../fixtures/tdx/quote-maker.ts'

test('a quote whose quoting enclave vouches for another key is refused', (t) => {
  const verdict = judge({ evidence: quote({ qe: { reportData: new Uint8Array(64) } }) })
  t.deepEqual(codes(verdict), ['qe_binding'])
  t.is(verdict.verdict, 'contraindicated')
})

test('a quote of another maker’s quoting enclave is refused', (t) => {
  const verdict = judge({ evidence: quote({ header: { vendor: new Uint8Array(16).fill(9) } }) })
  t.deepEqual(codes(verdict), ['qe_vendor'])
  t.is(verdict.verdict, 'contraindicated')
})

test('the second half of the quoting enclave’s report data must be zero', (t) => {
  const attestationKey = newKey()
  const binding = createHash('sha256').update(publicPoint(attestationKey)).update(new Uint8Array(32)).digest()
  const bound = (rest: Uint8Array): Uint8Array =>
    quote({ attestationKey, qeAuthData: new Uint8Array(32), qe: { reportData: concatBytes(binding, rest) } })
  t.is(judge({ evidence: bound(new Uint8Array(32)) }).verdict, 'affirming')
  const verdict = judge({ evidence: bound(Uint8Array.of(...new Uint8Array(31), 1)) })
  t.deepEqual(codes(verdict), ['qe_binding'])
})

test('authentication data of any length that is bound by the quoting enclave is accepted', (t) => {
  for (const length of [0, 1, 32, 1000])
    t.is(judge({ evidence: quote({ qeAuthData: new Uint8Array(length) }) }).verdict, 'affirming')
})

test('a nonce is the report data, padded with zeros', (t) => {
  const reportData = new Uint8Array(64)
  reportData.set([1, 2, 3])
  const evidence = quote({ td: { reportData } })
  t.is(judge({ evidence, nonce: Uint8Array.of(1, 2, 3) }).verdict, 'affirming')
  t.is(judge({ evidence, nonce: reportData }).verdict, 'affirming')
  t.deepEqual(codes(judge({ evidence, nonce: Uint8Array.of(1, 2) })), ['nonce_mismatch'])
  t.deepEqual(codes(judge({ evidence, nonce: Uint8Array.of(0, 1, 2, 3) })), ['nonce_mismatch'])
  t.deepEqual(codes(judge({ nonce: new Uint8Array() })), ['nonce_mismatch'])
  t.throws(() => judge({ evidence, nonce: new Uint8Array(65) }), { code: 'ERR_NONCE' })
})

for (let bit = 0; bit < 64; bit++) {
  const wanted = ((): { code: string; verdict: Verdict } | undefined => {
    if (bit === 0) return { code: 'debug', verdict: 'contraindicated' }
    if (bit >= 4 && bit <= 6) return { code: 'profiling', verdict: 'contraindicated' }
    if (bit === 16 || bit === 27 || bit === 62) return { code: 'unjudged_attributes', verdict: 'warning' }
    if (bit === 29) return { code: 'migratable', verdict: 'warning' }
    if (bit === 28 || bit === 30 || bit === 31 || bit === 63) return undefined
    return { code: 'reserved_bits', verdict: 'contraindicated' }
  })()
  const outcome = wanted?.verdict ?? 'affirming'
  test(`with bit ${bit} of TDATTRIBUTES the verdict is ${outcome}`, (t) => {
    const tdAttributes = 0x10000000n | (1n << BigInt(bit))
    const verdict = judge({ evidence: quote({ td: { tdAttributes } }) })
    t.deepEqual(codes(verdict), wanted === undefined ? [] : [wanted.code])
    t.is(verdict.verdict, outcome)
    t.is(verdict.claims.debug, bit === 0)
  })
}

test('a TD whose memory accesses the host can make fail is no more than a warning', (t) => {
  const verdict = judge({ evidence: quote({ td: { tdAttributes: 0n } }) })
  t.deepEqual(codes(verdict), ['sept_ve'])
  t.is(verdict.verdict, 'warning')
})

const XFAM = 0x602e7n
for (let bit = 0; bit < 64; bit++) {
  const outcome = [8, 9, 14, 15].includes(bit) ? 'affirming' : bit === 19 ? 'warning' : 'contraindicated'
  test(`with bit ${bit} of XFAM the other way round the verdict is ${outcome}`, (t) => {
    const verdict = judge({ evidence: quote({ td: { xfam: XFAM ^ (1n << BigInt(bit)) } }) })
    t.is(verdict.verdict, outcome)
    t.deepEqual(codes(verdict), { affirming: [], warning: ['unjudged_attributes'], contraindicated: ['xfam'] }[outcome])
    if (bit < 2) t.is(verdict.reasons[0]?.expected, 'bits 0 and 1 set')
  })
}

test('a TD without AVX, AVX-512 and AMX is accepted', (t) => {
  t.is(judge({ evidence: quote({ td: { xfam: 3n } }) }).verdict, 'affirming')
})

test('a TDX module that is not Intel’s is refused, with and without TCB information', (t) => {
  const evidence = quote({ td: { mrSignerSeam: new Uint8Array(48).fill(1) } })
  t.deepEqual(codes(judge({ evidence })), ['tdx_module_signer'])
  t.is(judge({ evidence, collateral: [] }).verdict, 'contraindicated')
  const named = collateralFiles({ tcb: { mrsigner: '01'.repeat(48) } })
  t.is(judge({ evidence, collateral: named }).verdict, 'affirming')
  t.deepEqual(codes(judge({ collateral: named })), ['tdx_module_signer'])
})

test('attributes of the TDX module must be zero whatever the TCB information says', (t) => {
  const evidence = quote({ td: { seamAttributes: 1n } })
  t.deepEqual(codes(judge({ evidence })), ['tdx_module_attributes'])
  const tcb = { attributes: '0100000000000000' }
  t.deepEqual(codes(judge({ evidence, collateral: collateralFiles({ tcb }) })), ['tdx_module_attributes'])
})

test('a service TD that may change the TD is no more than a warning', (t) => {
  const td = { mrServiceTd: new Uint8Array(48).fill(1) }
  t.deepEqual(codes(judge({ evidence: quote({ version: 5, body: 'td-1.5', td }) })), ['service_td'])
})
