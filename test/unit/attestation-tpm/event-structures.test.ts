/** What event logs hold inside: older and confidential-computing logs, padding, and the structures of UEFI events. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { describeEvent } from '#attestation/tpm/parse/describe-event'
import { EventLogError, parseEventLog } from '#attestation/tpm/parse/event-log'
import { parseImageLoadEvent, parseUefiVariable } from '#attestation/tpm/parse/uefi-events'
import {
  parseDevicePath,
  parseFirmwareBlob,
  parseGptEvent,
  parseHandoffTables,
  parseSignatureLists,
  SIGNATURE_TYPE,
} from '#attestation/tpm/parse/uefi-structures'
import { replayEventLog } from '#attestation/tpm/verify/replay'
import { concatBytes, toHex } from '#protocol/encoding'
import { nodeCrypto } from '#protocol/node/crypto'
import { refusesOrKeeps } from '../parser-property.ts'

const vector = (path: string): Uint8Array =>
  new Uint8Array(readFileSync(new URL(`../../vectors/${path}`, import.meta.url)))
const ubuntu = vector('tpm/go-eventlog/eventlogs/tpm/ubuntu-1804-amd-sev.bin')
const keylime = vector('tpm/keylime/test/data/create-mb-policy/binary_bios_measurements')

/** Data of the first event of this type that `wanted` likes. */
function dataOf(log: Uint8Array, type: number, wanted: (data: Uint8Array) => boolean = () => true): Uint8Array {
  const event = parseEventLog(log).events.find((candidate) => candidate.type === type && wanted(candidate.data))
  if (event === undefined) throw new Error(`no event 0x${type.toString(16)}`)
  return event.data
}
const db = parseUefiVariable(dataOf(ubuntu, 0x80000001, (data) => parseUefiVariable(data).name === 'db')).value
const devicePath = parseImageLoadEvent(dataOf(ubuntu, 0x80000003)).devicePath
const gpt = dataOf(ubuntu, 0x80000006)
const blob = dataOf(keylime, 0x80000008)
const tables = dataOf(keylime, 0x80000009)

test('the signature database of a machine is read to certificates and hashes', (t) => {
  const lists = parseSignatureLists(db)
  t.true(lists.length > 0)
  t.true(lists.every(({ type }) => type === SIGNATURE_TYPE.x509 || type === SIGNATURE_TYPE.sha256))
  t.true(lists.every(({ entries }) => entries.length > 0))
})

test('boot loaders, disks and tables of a boot are read from its log', (t) => {
  t.true(parseDevicePath(devicePath).length > 1)
  t.true(parseGptEvent(gpt).partitions.some(({ name, type }) => name !== '' || type !== ''))
  t.true(parseFirmwareBlob(blob, 1).length > 0n)
  t.deepEqual(parseHandoffTables(tables, 1).length, 1)
})

test('structures of events that are cut or followed by bytes are refused', (t) => {
  const whole: readonly [string, Uint8Array, (bytes: Uint8Array) => unknown][] = [
    ['partition table', gpt, parseGptEvent],
    ['firmware blob', blob, (bytes) => parseFirmwareBlob(bytes, 1)],
    ['firmware blob 2', Uint8Array.of(1, 0x41, ...blob), (bytes) => parseFirmwareBlob(bytes, 2)],
    ['tables', tables, (bytes) => parseHandoffTables(bytes, 1)],
    ['tables 2', Uint8Array.of(1, 0x41, ...tables), (bytes) => parseHandoffTables(bytes, 2)],
  ]
  for (const [name, bytes, parse] of whole) {
    t.notThrows(() => parse(bytes), name)
    for (let length = 0; length < bytes.length; length++) t.throws(() => parse(bytes.slice(0, length)), undefined, name)
    t.throws(() => parse(concatBytes(bytes, Uint8Array.of(0))), undefined, name)
  }
  for (let length = 1; length < 28; length++) t.throws(() => parseSignatureLists(db.slice(0, length)))
  t.deepEqual(parseSignatureLists(new Uint8Array()), [])
})

const changesOf = (good: Uint8Array): fc.Arbitrary<Uint8Array> =>
  fc.oneof({ weight: 4, arbitrary: changedBytes(good) }, fc.uint8Array({ maxLength: 96 }))
function changedBytes(good: Uint8Array): fc.Arbitrary<Uint8Array> {
  return fc
    .tuple(fc.nat(good.length), fc.nat(4), fc.uint8Array({ maxLength: 8 }))
    .map(([at, length, bytes]) => concatBytes(good.slice(0, at), bytes, good.slice(at + length)))
}

test('whatever the data of an event is changed to, it is read or refused', (t) => {
  refusesOrKeeps(t, changesOf(db), parseSignatureLists)
  refusesOrKeeps(t, changesOf(devicePath), parseDevicePath)
  refusesOrKeeps(t, changesOf(gpt), parseGptEvent)
  refusesOrKeeps(t, changesOf(blob), (bytes) => parseFirmwareBlob(bytes, 1))
  refusesOrKeeps(t, changesOf(blob), (bytes) => parseFirmwareBlob(bytes, 2))
  refusesOrKeeps(t, changesOf(tables), (bytes) => parseHandoffTables(bytes, 1))
})

test('any event can be told in words', (t) => {
  fc.assert(
    fc.property(fc.nat(0x20), fc.boolean(), fc.uint8Array({ maxLength: 64 }), (type, efi, data) => {
      return typeof describeEvent(efi ? 0x80000000 + type : type, data) === 'string'
    }),
  )
  t.regex(describeEvent(0x80000006, gpt), /^EV_EFI_GPT_EVENT: disk [0-9a-f-]{36} of \d+ partitions$/)
})

// ---- padding and older forms

test('a log that was copied with the unused rest of its area replays as without it', (t) => {
  const expected = [...replayEventLog(nodeCrypto, parseEventLog(ubuntu), 'sha384')]
  for (const fill of [0, 0xff]) {
    for (const length of [8, 100, 4096]) {
      const padded = parseEventLog(concatBytes(ubuntu, new Uint8Array(length).fill(fill)))
      t.is(padded.padding, length)
      t.deepEqual([...replayEventLog(nodeCrypto, padded, 'sha384')], expected)
    }
    t.throws(() => parseEventLog(concatBytes(ubuntu, new Uint8Array(64).fill(fill), Uint8Array.of(1))), {
      instanceOf: EventLogError,
    })
  }
  t.throws(() => parseEventLog(concatBytes(ubuntu, new Uint8Array(64), new Uint8Array(64).fill(0xff))), {
    instanceOf: EventLogError,
  })
  t.throws(() => parseEventLog(concatBytes(ubuntu, new Uint8Array(4))), { instanceOf: EventLogError })
})

test('a log of SHA-1 alone is read with padding too, which is no event', (t) => {
  const debian = vector('tpm/go-eventlog/eventlogs/tpm/debian-10.bin')
  const log = parseEventLog(debian)
  t.is(log.format, 'sha1')
  t.deepEqual(log.banks, ['sha1'])
  t.deepEqual(parseEventLog(concatBytes(debian, new Uint8Array(512))).events, log.events)
})

test('a log of SHA-1 alone may begin with a note or with an older header', (t) => {
  const short = parseEventLog(vector('tpm/go-eventlog/legacydata/short_no_action_eventlog'))
  t.like(short, { format: 'sha1', startupLocality: 3, events: [] })
  const note = (text: string, bytes: number): Uint8Array =>
    concatBytes(
      Uint8Array.of(0, 0, 0, 0, 3, 0, 0, 0),
      new Uint8Array(20),
      Uint8Array.of(bytes, 0, 0, 0),
      Uint8Array.from({ length: bytes }, (_, index) => text.charCodeAt(index) || 0),
    )
  t.is(parseEventLog(note('Spec ID Event02\0', 29)).format, 'sha1')
  t.is(parseEventLog(note('Spec ID Event00\0', 40)).format, 'sha1')
  t.throws(() => parseEventLog(note('Spec ID Event04\0', 40)), { code: 'ERR_EVENT_LOG_HEADER' })
})

test('a crypto-agile log of another version, or with a broken header, is refused', (t) => {
  for (const [at, value] of [
    [32 + 20, 1],
    [32 + 21, 3],
    [32 + 24, 0],
    [32 + 24, 9],
    [8, 1],
  ] as const) {
    const changed = ubuntu.slice()
    changed[at] = value
    t.throws(() => parseEventLog(changed), { instanceOf: EventLogError }, `byte ${at}`)
  }
})

for (const [path, expected] of [
  ['trustee/deps/eventlog/test_data/CCEL_data', 'trustee/deps/eventlog/test_data/CCEL_data_out.json'],
  ['trustee/deps/eventlog/test_data/CCEL_data_ovmf', 'trustee/deps/eventlog/test_data/CCEL_data_ovmf_out.json'],
] as const) {
  test(`the confidential-computing log ${path} is read event by event, area and all`, (t) => {
    const log = parseEventLog(vector(`tdx/${path}`))
    t.deepEqual(log.banks, ['sha384'])
    const wanted: { uefi_event_logs: { index: number; digests: { digest: string }[] }[] } = JSON.parse(
      Buffer.from(vector(`tdx/${expected}`)).toString(),
    )
    t.deepEqual(
      log.events.map(({ pcr, digests }) => [pcr, toHex(digests.sha384 ?? new Uint8Array())]),
      wanted.uefi_event_logs.map(({ index, digests }) => [index, digests[0]?.digest ?? '']),
    )
  })
}

test('PCR 0 begins with the locality of a hardware measurement, and the dynamic PCRs with zeros once they are measured into', (t) => {
  const header = ubuntu.slice(0, 32 + new DataView(ubuntu.buffer, ubuntu.byteOffset).getUint32(28, true))
  const digests = (fill: number): Uint8Array =>
    concatBytes(
      ...[Uint8Array.of(3, 0, 0, 0, 4, 0), new Uint8Array(20).fill(fill), Uint8Array.of(0x0b, 0)],
      ...[new Uint8Array(32).fill(fill), Uint8Array.of(0x0c, 0), new Uint8Array(48).fill(fill), new Uint8Array(4)],
    )
  const hcrtm = concatBytes(Uint8Array.of(0, 0, 0, 0, 0x10, 0, 0, 0x80), digests(1))
  const dynamic = concatBytes(Uint8Array.of(17, 0, 0, 0, 0, 0, 0, 0x10), digests(2))
  const log = parseEventLog(concatBytes(header, hcrtm, dynamic))
  const pcrs = replayEventLog(nodeCrypto, log, 'sha256')
  const start = new Uint8Array(32)
  const extended = (from: Uint8Array, fill: number): string =>
    createHash('sha256').update(from).update(new Uint8Array(32).fill(fill)).digest('hex')
  t.is(toHex(pcrs.get(17) ?? start), extended(start, 2))
  start[31] = 4
  t.is(toHex(pcrs.get(0) ?? start), extended(start, 1))
})

const expectations: { event_log_negatives: readonly { file: string; expect: string }[] } = JSON.parse(
  Buffer.from(vector('tpm/_expected/quotes.json')).toString(),
)
for (const { file, expect } of expectations.event_log_negatives) {
  const refused = expect.startsWith('reject')
  test(`the odd log ${file.split('/').at(-1)} is ${refused ? 'refused' : 'read without harm'}`, (t) => {
    const parse = (): unknown => parseEventLog(vector(`tpm/${file}`))
    if (refused) t.throws(parse, { instanceOf: EventLogError })
    else t.notThrows(parse)
  })
}
