/** What a boot's log adds to quoted PCRs: honest logs of real machines, and the same with one thing wrong at a time. */
import { readFileSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { appraiseBootLog, type BootLogAppraisal } from '#attestation/tpm/evaluate/boot-log'
import { secureBootState } from '#attestation/tpm/evaluate/secure-boot'
import { type EventLog, EventLogError, parseEventLog, type TpmEvent } from '#attestation/tpm/parse/event-log'
import type { PcrValues } from '#attestation/tpm/parse/pcr-values'
import { replayEventLog } from '#attestation/tpm/verify/replay'
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { concatBytes, fromHex, toHex } from '#protocol/encoding'
import { nodeCrypto } from '#protocol/node/crypto'

const vector = (path: string): Uint8Array =>
  new Uint8Array(readFileSync(new URL(`../../vectors/tpm/${path}`, import.meta.url)))

interface Expected {
  readonly name: string
  readonly log: string
  readonly pcrs: Readonly<Record<string, Readonly<Record<string, string>>>>
  readonly efi_app_digests: Readonly<Record<string, readonly string[]>>
}
const expected: { logs: readonly Expected[] } = JSON.parse(Buffer.from(vector('_expected/pcrs.json')).toString())

function quotedOf(pcrs: Expected['pcrs'], banks = Object.keys(pcrs)): PcrValues {
  return new Map(
    banks.map((bank) => [
      bank as HashAlgorithm,
      new Map(Object.entries(pcrs[bank] ?? {}).map(([pcr, value]) => [Number(pcr), fromHex(value, 'pcr')])),
    ]),
  )
}

const codes = ({ findings }: BootLogAppraisal): string[] => findings.map(({ code }) => code)

for (const { name, log, pcrs, efi_app_digests } of expected.logs) {
  test(`the log of ${name} replays to the PCRs of its machine in every bank, and nothing in it is contradicted`, (t) => {
    const appraisal = appraiseBootLog(parseEventLog(vector(log)), quotedOf(pcrs))
    t.deepEqual(codes(appraisal), [])
    const digests = Object.keys(efi_app_digests).length === 0 ? undefined : efi_app_digests
    const bank = pcrs.sha256 === undefined ? 'sha1' : 'sha256'
    if (digests !== undefined) t.deepEqual(appraisal.claims.boot_applications, digests[bank])
    t.is(typeof appraisal.claims.secure_boot, 'boolean')
  })

  test(`a PCR of ${name} that is not what its log replays to is named, bank by bank`, (t) => {
    const parsed = parseEventLog(vector(log))
    for (const bank of Object.keys(pcrs)) {
      for (const pcr of Object.keys(pcrs[bank] ?? {})) {
        const value = fromHex(pcrs[bank]?.[pcr] ?? '', 'pcr')
        value[3] = (value[3] ?? 0) ^ 1
        const others = { ...pcrs, [bank]: { ...pcrs[bank], [pcr]: toHex(value) } }
        const [finding, ...more] = appraiseBootLog(parsed, quotedOf(others)).findings
        t.deepEqual(more, [])
        t.like(finding, { code: 'event_log_mismatch', severity: 'contraindicated', expected: toHex(value) })
        t.is(finding?.found, pcrs[bank]?.[pcr])
        t.is(finding?.message, `the event log does not replay to PCR ${pcr} of ${bank}`)
      }
    }
  })
}

const cos = expected.logs.find(({ name }) => name === 'COS85AmdSev')
const cosLog = vector(cos?.log ?? '')
const cosQuoted = quotedOf(cos?.pcrs ?? {}, ['sha256'])
const cosAppraisal = appraiseBootLog(parseEventLog(cosLog), cosQuoted)

test('a log whose events are reordered, missing or doubled does not replay', (t) => {
  const log = parseEventLog(cosLog)
  const swapped = [...log.events]
  for (let index = 0; index < log.events.length; index++) {
    const without = log.events.filter((_, other) => other !== index)
    t.true(codes(appraiseBootLog({ ...log, events: without }, cosQuoted)).includes('event_log_mismatch'))
    const doubled = log.events.flatMap((event, other) => (other === index ? [event, event] : [event]))
    t.true(codes(appraiseBootLog({ ...log, events: doubled }, cosQuoted)).includes('event_log_mismatch'))
    const next = swapped.findIndex((event, other) => other > index && event.pcr === log.events[index]?.pcr)
    if (next < 0 || sameDigest(log.events[index], log.events[next])) continue
    const reordered = log.events.with(index, pick(log, next)).with(next, pick(log, index))
    t.true(codes(appraiseBootLog({ ...log, events: reordered }, cosQuoted)).includes('event_log_mismatch'))
  }
})

function pick(log: EventLog, index: number): TpmEvent {
  const event = log.events[index]
  if (event === undefined) throw new Error(`no event ${index}`)
  return event
}
function sameDigest(a: TpmEvent | undefined, b: TpmEvent | undefined): boolean {
  return toHex(a?.digests.sha256 ?? new Uint8Array()) === toHex(b?.digests.sha256 ?? new Uint8Array())
}

test('no byte of a log can be changed so that it claims something else about the boot without a finding', (t) => {
  let refused = 0
  for (let at = 0; at < cosLog.length; at += 41) {
    const changed = cosLog.slice()
    changed[at] = (changed[at] ?? 0) ^ 0x11
    try {
      const appraisal = appraiseBootLog(parseEventLog(changed), cosQuoted)
      if (appraisal.findings.length === 0) claimsNothingElse(t, appraisal, `byte ${at}`)
      else refused++
    } catch (error) {
      t.true(error instanceof EventLogError)
      refused++
    }
  }
  t.true(refused > cosLog.length / 41 / 2)
})

test('an event that is passed off as one of another type claims nothing else about the boot', (t) => {
  const log = parseEventLog(cosLog)
  for (const [index, event] of log.events.entries()) {
    for (const type of [0x01, 0x05, 0x0d, 0x80000001, 0x80000003, 0x80000007, 0x800000e0]) {
      if (type === event.type) continue
      const appraisal = appraiseBootLog({ ...log, events: log.events.with(index, { ...event, type }) }, cosQuoted)
      if (appraisal.findings.length === 0) claimsNothingElse(t, appraisal, `event ${index} as 0x${type.toString(16)}`)
    }
  }
})

/** Nothing is claimed that was not: null is no claim. */
function claimsNothingElse(t: ExecutionContext, { claims }: BootLogAppraisal, how: string): void {
  t.is(claims.secure_boot, cosAppraisal.claims.secure_boot, how)
  t.deepEqual(claims.boot_applications, cosAppraisal.claims.boot_applications, how)
  t.true([null, cosAppraisal.claims.kernel_cmdline].includes(claims.kernel_cmdline), how)
}

test('a log without events for a PCR that firmware always measures into was cut', (t) => {
  const log = parseEventLog(cosLog)
  const appraisal = appraiseBootLog({ ...log, events: log.events.filter(({ pcr }) => pcr !== 7) }, cosQuoted)
  t.deepEqual(codes(appraisal), ['event_log_mismatch'])
  t.is(appraisal.claims.secure_boot, null)
})

test('a PCR that the running system extends later is a warning, not a contradiction', (t) => {
  const log = parseEventLog(cosLog)
  const moved = log.events.map((event) => (event.pcr === 8 ? { ...event, pcr: 11 } : event))
  const sha256 = new Map(cosQuoted.get('sha256'))
  sha256.delete(8)
  sha256.set(11, new Uint8Array(32).fill(1))
  const [finding] = appraiseBootLog({ ...log, events: moved }, new Map([['sha256', sha256]])).findings
  t.like(finding, { code: 'event_log_incomplete', severity: 'warning' })
})

test('PCRs that neither the log nor the firmware knows are left to others', (t) => {
  const sha256 = new Map(cosQuoted.get('sha256')).set(15, new Uint8Array(32).fill(7))
  t.deepEqual(codes(appraiseBootLog(parseEventLog(cosLog), new Map([['sha256', sha256]]))), [])
})

test('a log that ends before ExitBootServices still accounts for PCR 5', (t) => {
  const log = parseEventLog(cosLog)
  const isExit = ({ data }: TpmEvent): boolean => Buffer.from(data).toString('latin1').startsWith('Exit Boot Services')
  const cut = log.events.filter((event) => !isExit(event))
  t.true(cut.length < log.events.length)
  t.deepEqual(codes(appraiseBootLog({ ...log, events: cut }, cosQuoted)), [])
})

test('a separator that stands for an error, or is none, is a contradiction', (t) => {
  const changed = (data: Uint8Array, digestOf: Uint8Array): BootLogAppraisal => {
    const log = parseEventLog(cosLog)
    const hash = nodeCrypto.createHash('sha256')
    hash.update(digestOf)
    const sha256 = hash.digest()
    const events = log.events.map((event) =>
      event.type === 4 && event.pcr === 4
        ? { ...event, data, digests: { sha256 } }
        : { ...event, digests: { sha256: event.digests.sha256 ?? sha256 } },
    )
    const other: EventLog = { ...log, banks: ['sha256'], events }
    return appraiseBootLog(other, new Map([['sha256', replayEventLog(nodeCrypto, other, 'sha256')]]))
  }
  t.deepEqual(codes(changed(new Uint8Array(4), new Uint8Array(4))), [])
  t.deepEqual(codes(changed(new Uint8Array(4).fill(0xff), new Uint8Array(4).fill(0xff))), [])
  t.deepEqual(codes(changed(fromHex('0badf00d', 'error'), Uint8Array.of(1, 0, 0, 0))), ['firmware_error'])
  t.deepEqual(codes(changed(new Uint8Array(4), Uint8Array.of(2))), ['event_data_mismatch'])
  t.deepEqual(codes(changed(Uint8Array.of(2), Uint8Array.of(2))), ['event_data_mismatch'])
})

test('a separator that is passed off as another event is found by its digest', (t) => {
  const log = parseEventLog(cosLog)
  const events = log.events.map((event) =>
    event.type === 4 && event.pcr === 4 ? { ...event, type: 0x80000003 } : event,
  )
  t.deepEqual(codes(appraiseBootLog({ ...log, events }, cosQuoted)), ['event_data_mismatch'])
})

test('a log of other banks than those quoted stays unchecked', (t) => {
  const sha512: PcrValues = new Map([['sha512', new Map([[0, new Uint8Array(64)]])]])
  t.deepEqual(codes(appraiseBootLog(parseEventLog(cosLog), sha512)), ['unchecked_event_log'])
})

// ---- Secure Boot

const pcr7 = parseEventLog(cosLog).events.filter(({ pcr }) => pcr === 7)
const variable = (name: string, value: Uint8Array, guid = '61dfe48bca93d211aa0d00e098032b8c'): TpmEvent => ({
  pcr: 7,
  type: 0x80000001,
  digests: {},
  data: concatBytes(
    fromHex(guid, 'guid'),
    Uint8Array.of(name.length, 0, 0, 0, 0, 0, 0, 0, value.length, 0, 0, 0, 0, 0, 0, 0),
    new Uint8Array(Buffer.from(name, 'utf16le')),
    value,
  ),
})
const separator: TpmEvent = { pcr: 7, type: 4, digests: {}, data: new Uint8Array(4) }

test('the state of Secure Boot is what firmware measured before the separator, and nothing else', (t) => {
  t.like(secureBootState(pcr7), { known: true, enabled: true, debugger: false, dmaProtection: true })
  t.like(secureBootState([variable('SecureBoot', Uint8Array.of(0)), separator]), { known: true, enabled: false })
  t.like(secureBootState([variable('SecureBoot', new Uint8Array()), separator]), { known: true, enabled: false })
  const unknown: readonly [string, readonly TpmEvent[]][] = [
    ['no separator', pcr7.filter(({ type }) => type !== 4)],
    ['two separators', [...pcr7, separator]],
    ['no variable', [separator]],
    ['variable behind the separator', [separator, variable('SecureBoot', Uint8Array.of(1))]],
    ['variable twice', [variable('SecureBoot', Uint8Array.of(0)), ...pcr7]],
    ['variable of another owner', [variable('SecureBoot', Uint8Array.of(0), '00'.repeat(16)), separator]],
    ['other value', [variable('SecureBoot', Uint8Array.of(2)), separator]],
    ['nothing verified', pcr7.filter(({ type }) => type !== 0x800000e0)],
    ['unknown event', [...pcr7, { ...separator, type: 0x0d }]],
    [
      'error separator',
      [variable('SecureBoot', Uint8Array.of(0)), { ...separator, data: new Uint8Array(4).fill(255) }],
    ],
    ['no keys', [variable('SecureBoot', Uint8Array.of(1)), separator, { ...separator, type: 0x800000e0 }]],
    ['unreadable variable', [{ ...variable('SecureBoot', Uint8Array.of(1)), data: new Uint8Array(3) }, separator]],
  ]
  for (const [name, events] of unknown) t.false(secureBootState(events).known, name)
  const action = (text: string): TpmEvent => ({ ...separator, type: 0x80000007, data: new TextEncoder().encode(text) })
  t.like(secureBootState([action('UEFI Debug Mode'), ...pcr7]), { debugger: true })
  t.like(secureBootState([action('DMA Protection Disabled'), ...pcr7]), { dmaProtection: false })
  t.false(secureBootState([action('something'), ...pcr7]).known)
})
