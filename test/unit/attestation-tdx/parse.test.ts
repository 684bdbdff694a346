/** Every reader of TDX evidence and of Intel's documents answers with a value or refuses, whatever it is given. */
import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { parseIntelDocuments } from '#attestation/tdx/parse/collateral'
import { parseEnclaveIdentity } from '#attestation/tdx/parse/enclave-identity'
import { parseTdxEvidence } from '#attestation/tdx/parse/evidence'
import { parsePckExtension } from '#attestation/tdx/parse/pck-extension'
import { MAX_QUOTE_BYTES, parseQuote } from '#attestation/tdx/parse/quote'
import { parseRuntimeLog } from '#attestation/tdx/parse/runtime-log'
import { splitMembers } from '#attestation/tdx/parse/signed-document'
import { parseTcbInfo } from '#attestation/tdx/parse/tcb-info'
import { concatBytes, equalBytes, toBase64 } from '#protocol/encoding'
import { answer, qeIdentity, tcbInfo } from '../../fixtures/tdx/collateral-maker.ts'
import { sgxExtension } from '../../fixtures/tdx/intel-pki.ts'
import { pki, quote } from '../../fixtures/tdx/platform.ts'
import { altered, damaged, refusesOrKeeps } from '../parser-property.ts'

const quotes = [
  quote(),
  quote({ version: 5 }),
  quote({ version: 5, body: 'td-1.5' }),
  quote({ version: 3, body: 'sgx' }),
]
const modules = [{ id: 'TDX_01', levels: [{ isvsvn: 2, status: 'UpToDate', advisories: ['INTEL-SA-00001'] }] }]
const goodTcbInfo = tcbInfo({ modules })
const extension = sgxExtension({ platformInstance: true })

/** A good value with a run of bytes replaced, or cut short, or anything. */
function damagedBytes(good: Uint8Array): fc.Arbitrary<Uint8Array> {
  const changed = fc
    .tuple(fc.nat(good.length - 1), fc.uint8Array({ minLength: 1, maxLength: 8 }))
    .map(([at, piece]) => concatBytes(good.subarray(0, at), piece, good.subarray(at + piece.length)))
  const cut = fc.nat(good.length).map((length) => good.slice(0, length))
  return fc.oneof({ weight: 3, arbitrary: changed }, cut, fc.uint8Array({ maxLength: 2048 }))
}

test('any bytes are a quote whose signed part they begin with, or are refused', (t) => {
  for (const good of quotes) {
    refusesOrKeeps(t, damagedBytes(good), parseQuote, ({ signed }, input) =>
      equalBytes(signed, input.subarray(0, signed.length)),
    )
  }
})

test('a quote that is cut at any length is refused', (t) => {
  for (const good of quotes) {
    t.truthy(parseQuote(good))
    for (let length = 0; length < good.length; length++) {
      t.throws(() => parseQuote(good.subarray(0, length)), { code: 'ERR_QUOTE' }, String(length))
    }
  }
})

test('bytes behind a quote are refused unless all are zero, and so is more than a quote can need', (t) => {
  for (const good of quotes) {
    t.is(parseQuote(concatBytes(good, new Uint8Array(100))).padding, 100)
    t.throws(() => parseQuote(concatBytes(good, Uint8Array.of(1))), { code: 'ERR_QUOTE' })
    t.throws(() => parseQuote(concatBytes(good, new Uint8Array(50), Uint8Array.of(0x80))), { code: 'ERR_QUOTE' })
    t.throws(() => parseQuote(concatBytes(good, new Uint8Array(MAX_QUOTE_BYTES))), { code: 'ERR_QUOTE' })
  }
})

test('every length in a quote is checked: one more or one less is refused', (t) => {
  for (const good of quotes) {
    const version = good[0]
    const body = version === 3 ? 384 : good[48] === 3 && version === 5 ? 648 : 584
    const size = 48 + (version === 5 ? 6 : 0) + body
    const signatures = size + 4 + 128
    const outer = version === 3 ? [] : [signatures + 2]
    const report = signatures + (version === 3 ? 0 : 6)
    const auth = report + 384 + 64
    const authLength = (good[auth] ?? 0) | ((good[auth + 1] ?? 0) << 8)
    const lengths = [size, ...outer, auth, auth + 2 + authLength + 2, ...(version === 5 ? [50] : [])]
    for (const at of lengths) {
      for (const by of [1, -1]) {
        const changed = good.slice()
        changed[at] = ((changed[at] ?? 0) + by) & 0xff
        t.throws(() => parseQuote(changed), undefined, `version ${version}, byte ${at}, ${by}`)
      }
      const huge = good.slice()
      huge.fill(0xff, at, at + (at === auth ? 2 : 4))
      t.throws(() => parseQuote(huge))
    }
  }
})

test('any evidence is read or refused', (t) => {
  const good = { quote: toBase64(quote()), cc_eventlog: '' }
  refusesOrKeeps(t, altered(good), parseTdxEvidence)
  refusesOrKeeps(t, damaged(JSON.stringify(good)), parseTdxEvidence)
  refusesOrKeeps(t, damagedBytes(quote()), parseTdxEvidence)
})

test('any runtime log is read to its lines or refused', (t) => {
  const good = `INIT sha384/${'0'.repeat(96)}\na b c\nd e f\n`
  refusesOrKeeps(t, damaged(good), parseRuntimeLog, ({ initial, lines }) => initial.length === 48 && lines.length > 0)
})

test('any SGX extension is read or refused, and a cut one is refused', (t) => {
  refusesOrKeeps(
    t,
    damagedBytes(extension),
    parsePckExtension,
    ({ sgxComponents, fmspc }) => sgxComponents.length === 16 && /^[0-9a-f]{12}$/.test(fmspc),
  )
  for (let length = 0; length < extension.length; length++) {
    t.throws(() => parsePckExtension(extension.subarray(0, length)))
  }
  t.throws(() => parsePckExtension(concatBytes(extension, Uint8Array.of(0))))
})

test('any TCB information is read with its levels in order, or refused', (t) => {
  const ordered = ({ levels }: ReturnType<typeof parseTcbInfo>): boolean =>
    levels.every((level, index) => {
      const before = levels[index - 1]
      return before === undefined || before.sgxComponents.join() >= level.sgxComponents.join()
    })
  refusesOrKeeps(t, damaged(JSON.stringify(goodTcbInfo)), parseTcbInfo, ordered)
  refusesOrKeeps(
    t,
    altered(goodTcbInfo).map((value) => JSON.stringify(value)),
    parseTcbInfo,
    ordered,
  )
})

test('any identity is read or refused', (t) => {
  const good = qeIdentity()
  refusesOrKeeps(t, damaged(JSON.stringify(good)), parseEnclaveIdentity, ({ levels }) => levels.length > 0)
  refusesOrKeeps(
    t,
    altered(good).map((value) => JSON.stringify(value)),
    parseEnclaveIdentity,
  )
})

test('any document is one of Intel’s with its exact text, or none, or refused', (t) => {
  const good = answer('tcbInfo', goodTcbInfo, pki.signer)
  refusesOrKeeps(
    t,
    damaged(good),
    (text) => parseIntelDocuments([{ name: 'x', text }]),
    ({ tcbInfos }, text) => tcbInfos.every(({ signed }) => text.includes(signed)),
  )
})

test('members are cut out of any object as they stand there', (t) => {
  refusesOrKeeps(
    t,
    fc.tuple(fc.dictionary(fc.string(), fc.jsonValue()), fc.constantFrom(0, 1, 3)).map(([value, indent]) => ({
      value,
      text: JSON.stringify(value, undefined, indent),
    })),
    ({ text }) => splitMembers(text),
    (members, { value, text }) =>
      members.size === Object.keys(value).length &&
      [...members].every(
        ([name, member]) =>
          text.includes(member) &&
          JSON.stringify(JSON.parse(member)) === JSON.stringify(Object.getOwnPropertyDescriptor(value, name)?.value),
      ),
  )
  refusesOrKeeps(t, damaged('{"a": {"b": [1, "}"]}, "c": "\\""}'), splitMembers)
  t.throws(() => splitMembers('{"a": 1, "\\u0061": 2}'), { code: 'ERR_JSON_DOCUMENT' })
})

const REFUSED: readonly (readonly [string, Record<string, unknown>])[] = [
  ['of an unknown version', { version: 4 }],
  ['of an unknown TEE', { id: 'SEV' }],
  ['with an unknown layout of components', { tcbType: 1 }],
  ['with a time that does not exist', { issueDate: '2025-02-30T00:00:00Z' }],
  ['with a month that does not exist', { nextUpdate: '2025-13-01T00:00:00Z' }],
  ['with a time in another form', { nextUpdate: '2025-06-15 00:00:00' }],
  ['with a short FMSPC', { fmspc: '50806f0000' }],
  ['without levels', { tcbLevels: [] }],
  ['for TDX without a module', { tdxModule: undefined }],
]
for (const [name, change] of REFUSED) {
  test(`TCB information ${name} is refused`, (t) => {
    t.throws(() => parseTcbInfo(JSON.stringify({ ...goodTcbInfo, ...change })), { code: 'ERR_TCB_INFO' })
  })
}

test('TCB information with a level twice, an unknown status or too few components is refused', (t) => {
  const twice = tcbInfo({ levels: [{ status: 'UpToDate' }, { status: 'OutOfDate' }] })
  const unknown = tcbInfo({ levels: [{ status: 'Fine' }] })
  const few = tcbInfo({ levels: [{ status: 'UpToDate', tdx: [1, 2] }] })
  for (const info of [twice, unknown, few]) t.throws(() => parseTcbInfo(JSON.stringify(info)), { code: 'ERR_TCB_INFO' })
})

test('TCB information of version 2 is that of SGX', (t) => {
  const text = readFileSync(new URL('../../vectors/tdx/intel-qvl/sampleData/tcbInfo.json', import.meta.url), 'utf8')
  const { tcbInfos } = parseIntelDocuments([{ name: 'tcbInfo.json', text }])
  t.is(tcbInfos[0]?.content.id, 'SGX')
  t.is(tcbInfos[0]?.content.levels.length, 6)
})

test('a document that cannot be read is named, and does not spoil the others', (t) => {
  const good = { name: 'good', text: answer('tcbInfo', goodTcbInfo, pki.signer) }
  const later = { name: 'later', text: answer('tcbInfo', { ...goodTcbInfo, version: 4 }, pki.signer) }
  const unsigned = { name: 'unsigned', text: '{"tcbInfo":{}}' }
  const { tcbInfos, broken } = parseIntelDocuments([later, good, unsigned])
  t.deepEqual(
    tcbInfos.map(({ name }) => name),
    ['good'],
  )
  t.deepEqual(
    broken.map(({ name, why }) => `${name} ${why.split(':')[0]}`),
    ['later ERR_TCB_INFO', 'unsigned ERR_TDX_COLLATERAL'],
  )
})
