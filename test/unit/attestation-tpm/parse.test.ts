import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { parseQuoteAttest } from '#attestation/tpm/parse/attest'
import { describeEvent } from '#attestation/tpm/parse/describe-event'
import { EventLogError, MAX_EVENTS, parseEventLog } from '#attestation/tpm/parse/event-log'
import { encodePublicArea, objectName, parsePublicArea, primaryQualifiedName } from '#attestation/tpm/parse/public-area'
import { parseTpmSignature } from '#attestation/tpm/parse/signature'
import { parseImageLoadEvent, parseTaggedEvent, parseUefiVariable } from '#attestation/tpm/parse/uefi-events'
import { replayEventLog } from '#attestation/tpm/verify/replay'
import { readDer } from '#protocol/der'
import { MalformedError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'))
const file = (path: string): Uint8Array => new Uint8Array(readFileSync(new URL(`../../${path}`, import.meta.url)))
const text = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString('hex')

// Captured from a TPM: an ECC P-256 AK, a quote by it, and its signature
const AK =
  '0023000b00050472000000100018000b000300100020fb5f7e25c28fb4a357574e44fb2d17577fd94512a3baa29468d7a5909f3ca3640020c267d821b241ea8a5220e303707ef631aeb22f36c2e25ef57483cf2d2f85c6c0'
const AK_NAME = '000b8b256b61dcc1d8e0faaad51d61f00e5ec3207f4a8daf47ea1fd3ef1df6ffb398'
const AK_QUALIFIED_NAME = '000b801901f53f4761580c1d81067ed5e5e639a109ab0be69d4a1c7a491650b453c4'
const QUOTE =
  'ff54434780180022000b801901f53f4761580c1d81067ed5e5e639a109ab0be69d4a1c7a491650b453c4002063dadf58b3a69693c8fac7605cb8dad5a7651acf00787b9492d1d339084e0827000000000004807c000000060000000001201910230016363600000001000b0301010000202d5ea31f70d640e790d2278c59a277cabedb5b5931bb4564b217773812cf3924'
const SIGNATURE =
  '0018000b002012a73175d9eedd92c0866d88ce8b1302bc2aedfe4188d66e08f4d48af94ac07a0020454798500e1f3f224c23257fac75e5bd3bbbd32bf753cfb8a7899ce928dae008'
const RSA_AK = `0001000b00050072000000100014000b080000000000${'0100'}${'ab'.repeat(256)}`

test('a public area is read field by field, and written back byte for byte', (t) => {
  const area = parsePublicArea(hex(AK))
  t.like(area, {
    type: 'ecc',
    curve: 'P-256',
    nameAlgorithm: 'sha256',
    attributes: 0x50472,
    symmetric: null,
    kdf: null,
  })
  t.deepEqual(area.scheme, { algorithm: 0x18, hash: 'sha256' })
  t.is(text(encodePublicArea(area)), AK)
  t.is(text(encodePublicArea(parsePublicArea(hex(RSA_AK)))), RSA_AK)
})

test('names and qualified names are those that the TPM gives', (t) => {
  t.is(text(objectName(nodeCrypto, hex(AK))), AK_NAME)
  t.is(text(primaryQualifiedName(nodeCrypto, 0x4000000b, hex(AK_NAME))), AK_QUALIFIED_NAME)
})

test('a quote is read field by field', (t) => {
  const attest = parseQuoteAttest(hex(QUOTE))
  t.like(attest, {
    clock: 0x4807cn,
    resetCount: 6,
    restartCount: 0,
    clockSafe: true,
    firmwareVersion: 0x2019102300163636n,
  })
  t.deepEqual(attest.selections, [{ bank: 'sha256', pcrs: [0, 8] }])
  t.is(text(attest.qualifiedSigner), AK_QUALIFIED_NAME)
})

test('a parsed quote does not change when the input buffer is reused', (t) => {
  const bytes = hex(QUOTE)
  const attest = parseQuoteAttest(bytes)
  bytes.fill(0xff)
  t.deepEqual(attest, parseQuoteAttest(hex(QUOTE)))
})

test('what is signed but is not a quote of a TPM is refused', (t) => {
  for (const changed of [`ff544348${QUOTE.slice(8)}`, `${QUOTE.slice(0, 8)}8017${QUOTE.slice(12)}`]) {
    t.throws(() => parseQuoteAttest(hex(changed)), { instanceOf: MalformedError, code: 'ERR_TPM_NOT_A_QUOTE' })
  }
})

const parsers: readonly [name: string, parse: (bytes: Uint8Array) => unknown, sample: string][] = [
  ['an ECC public area', parsePublicArea, AK],
  ['an RSA public area', parsePublicArea, RSA_AK],
  ['a quote', parseQuoteAttest, QUOTE],
  ['an ECDSA signature', parseTpmSignature, SIGNATURE],
  ['an RSA signature', parseTpmSignature, `0014000b0100${'cd'.repeat(256)}`],
  ['a UEFI variable', parseUefiVariable, `${'11'.repeat(16)}0200000000000000010000000000000050004b0001`],
  ['a tagged event', parseTaggedEvent, 'ed223b8f03000000414243'],
  ['an image load event', parseImageLoadEvent, `${'0100000000000000'.repeat(3)}04000000000000007fff0400`],
]

for (const [name, parse, sample] of parsers) {
  test(`${name} cut at any length, or followed by anything, is refused`, (t) => {
    const bytes = hex(sample)
    t.notThrows(() => parse(bytes))
    for (let length = 0; length < bytes.length; length++) {
      t.throws(() => parse(bytes.slice(0, length)), { instanceOf: MalformedError }, `${length} bytes`)
    }
    const longer = new Uint8Array(bytes.length + 1)
    longer.set(bytes)
    t.throws(() => parse(longer), { instanceOf: MalformedError, code: 'ERR_TRAILING_BYTES' })
  })

  test(`whatever bytes come instead of ${name}, they are read or refused, never anything else`, (t) => {
    const bytes = hex(sample)
    t.notThrows(() =>
      fc.assert(
        fc.property(fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { maxLength: 4 }), (changes) => {
          const changed = bytes.slice()
          for (const [at, value] of changes) changed[at] = value
          try {
            parse(changed)
          } catch (error) {
            if (!(error instanceof MalformedError)) throw error
          }
        }),
      ),
    )
  })
}

test('unknown algorithms, curves, schemes and selections are refused by name', (t) => {
  t.throws(() => parsePublicArea(hex(AK.replace(/^0023000b/, '00230027'))), { code: 'ERR_TPM_ALGORITHM' })
  t.throws(() => parsePublicArea(hex(AK.replace(/^0023/, '0008'))), { code: 'ERR_TPM_PUBLIC' })
  t.throws(() => parsePublicArea(hex(AK.replace('0018000b0003', '0018000b0009'))), { code: 'ERR_TPM_PUBLIC' })
  t.throws(() => parseTpmSignature(hex(SIGNATURE.replace(/^0018/, '001a'))), { code: 'ERR_TPM_SIGNATURE_SCHEME' })
  t.throws(() => parseQuoteAttest(hex(QUOTE.replace('000b03010100', '000b02010100'))), { code: 'ERR_TPM_SELECTION' })
  t.throws(() => parseQuoteAttest(hex(QUOTE.replace('00000001000b', '0000ffff000b'))), { code: 'ERR_TPM_SELECTION' })
})

// ---- event logs

/** Of the log with one bank: record 32 bytes, Spec ID event 33. */
const HEADER_BYTES = 65

const expected: { logs: { log: string; pcrs: Record<'sha1' | 'sha256', Record<string, string>> }[] } = JSON.parse(
  readFileSync(new URL('../../vectors/tpm/_expected/pcrs.json', import.meta.url), 'utf8'),
)

for (const { log, pcrs } of expected.logs) {
  test(`the log ${log.split('/').at(-1)} replays to the PCRs of its machine`, (t) => {
    const parsed = parseEventLog(file(`vectors/tpm/${log}`))
    for (const bank of ['sha1', 'sha256'] as const) {
      if (pcrs[bank] === undefined || !parsed.banks.includes(bank)) continue
      const replayed = replayEventLog(nodeCrypto, parsed, bank)
      for (const [pcr, value] of Object.entries(pcrs[bank]))
        t.is(text(replayed.get(Number(pcr))), value, `${bank} ${pcr}`)
    }
    for (const event of parsed.events) t.is(typeof describeEvent(event.type, event.data), 'string')
  })
}

test('the log of a direct kernel boot replays to the PCRs that its kernel showed', (t) => {
  const recorded = JSON.parse(readFileSync(new URL('../../fixtures/tpm/direct-boot.json', import.meta.url), 'utf8'))
  const replayed = replayEventLog(nodeCrypto, parseEventLog(file('fixtures/tpm/direct-boot.bin')), 'sha256')
  t.deepEqual(
    [...replayed.keys()].toSorted((a, b) => a - b),
    [0, 1, 2, 3, 4, 5, 6, 7, 9],
  )
  for (const [pcr, value] of replayed) t.is(text(value), recorded.pcrs[pcr])
})

test('an empty log and a bogus log are refused', (t) => {
  const keylime = 'vectors/tpm/keylime/test/data/create-mb-policy/binary_bios_measurements'
  t.notThrows(() => parseEventLog(file(keylime)))
  for (const path of [`${keylime}-empty`, `${keylime}-bogus`]) {
    t.throws(() => parseEventLog(file(path)), { instanceOf: EventLogError })
  }
  t.throws(() => parseEventLog(new Uint8Array()), { instanceOf: EventLogError, code: 'ERR_EVENT_LOG_HEADER' })
})

test('a log cut within a record is refused at every length', (t) => {
  const bytes = file('fixtures/tpm/direct-boot.bin')
  const ends = new Set<number>()
  let readable = 0
  for (let length = 0; length < bytes.length; length++) {
    try {
      parseEventLog(bytes.slice(0, length))
      readable++
      ends.add(length)
    } catch (error) {
      if (!(error instanceof EventLogError)) throw error
    }
  }
  // Readable are the header alone and each log that ends after a record.
  t.is(readable, parseEventLog(bytes).events.length)
  t.true(ends.has(HEADER_BYTES))
})

test('a log beyond the limits is refused before it is kept', (t) => {
  t.throws(() => parseEventLog(new Uint8Array(1024 * 1024 + 1)), { code: 'ERR_EVENT_LOG_LIMIT' })
  const header = file('fixtures/tpm/direct-boot.bin').slice(0, HEADER_BYTES)
  const record = Buffer.concat([hex('0000000004000000010000000b00'), new Uint8Array(32), hex('00000000')])
  const many = Buffer.concat([header, ...Array.from({ length: MAX_EVENTS + 1 }, () => record)])
  t.throws(() => parseEventLog(many), { code: 'ERR_EVENT_LOG_LIMIT' })
  const huge = Buffer.concat([header, record.subarray(0, record.length - 4), hex('ffffff7f')])
  t.throws(() => parseEventLog(huge), { code: 'ERR_EVENT_LOG_LIMIT' })
})

test('records for PCRs that do not exist, or with other banks than the header, are refused', (t) => {
  const header = file('fixtures/tpm/direct-boot.bin').slice(0, HEADER_BYTES)
  const log = (record: string) => Buffer.concat([header, hex(record)])
  const digest = '00'.repeat(32)
  t.is(parseEventLog(log(`0000000004000000010000000b00${digest}00000000`)).events.length, 1)
  for (const record of [
    `1800000004000000010000000b00${digest}00000000`,
    `0000000004000000010000000400${digest}00000000`,
    `000000000400000000000000${'00'.repeat(4)}`,
    `0000000004000000020000000b00${digest}0b00${digest}00000000`,
  ]) {
    t.throws(() => parseEventLog(log(record)), { code: 'ERR_EVENT_LOG_RECORD' })
  }
})

test('the start-up locality is where PCR 0 begins', (t) => {
  const header = file('fixtures/tpm/direct-boot.bin').slice(0, HEADER_BYTES)
  const digest = '11'.repeat(32)
  const locality = `0000000003000000010000000b00${'00'.repeat(32)}11000000${Buffer.from('StartupLocality\0').toString('hex')}03`
  const log = parseEventLog(
    Buffer.concat([header, hex(locality), hex(`0000000004000000010000000b00${digest}00000000`)]),
  )
  t.is(log.startupLocality, 3)
  const start = new Uint8Array(32)
  start[31] = 3
  const value = createHash('sha256').update(start).update(hex(digest)).digest('hex')
  t.is(text(replayEventLog(nodeCrypto, log, 'sha256').get(0)), value)
})

test('whatever a log’s bytes are changed to, it is read or refused as a log', (t) => {
  const bytes = file('fixtures/tpm/direct-boot.bin')
  t.notThrows(() =>
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { maxLength: 6 }), (changes) => {
        const changed = bytes.slice()
        for (const [at, value] of changes) changed[at] = value
        try {
          parseEventLog(changed)
        } catch (error) {
          if (!(error instanceof EventLogError)) throw error
        }
      }),
    ),
  )
})

test('DER lengths that are indefinite, too long or not in shortest form are refused', (t) => {
  for (const bytes of ['30', '3080', '308100', '30820001ff', '3084000000', '3002ff', '1f0100', '30850000000001']) {
    t.throws(() => readDer(hex(bytes)), { code: 'ERR_DER' }, bytes)
  }
})
