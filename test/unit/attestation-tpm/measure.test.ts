import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { encodeReferenceValues, parseReferenceValues, referenceValues } from '#attestation/measure/reference-values'
import { authenticodeSha256 } from '#attestation/measure/tpm/authenticode'
import { explainPcrMismatch } from '#attestation/measure/tpm/explain-pcr-mismatch'
import { unpackVolumes } from '#attestation/measure/tpm/firmware-volume'
import { kernelAsLoaded, loadOptions } from '#attestation/measure/tpm/linux-boot'
import { measuredFirmware } from '#attestation/measure/tpm/ovmf'
import { replay } from '#attestation/measure/tpm/predict-pcrs'
import { parseEventLog } from '#attestation/tpm/parse/event-log'
import { toHex } from '#protocol/encoding'
import { CaissonError, MalformedError, UsageError } from '#protocol/errors'

const log = parseEventLog(new Uint8Array(readFileSync(new URL('../../fixtures/tpm/direct-boot.bin', import.meta.url))))
const recorded: { commandLine: string } = JSON.parse(
  readFileSync(new URL('../../fixtures/tpm/direct-boot.json', import.meta.url), 'utf8'),
)

/** PE32+ with two sections out of order, a checksum, a certificate table and data behind the sections. */
function peImage(certificate = new Uint8Array()): Uint8Array {
  const image = new Uint8Array(0x800)
  const view = new DataView(image.buffer)
  image.forEach((_, index) => {
    image[index] = index & 0xff
  })
  view.setUint32(0x3c, 0x80, true)
  view.setUint32(0x80, 0x4550, true)
  view.setUint16(0x86, 2, true) // sections
  view.setUint16(0x94, 0xf0, true) // optional header
  const optional = 0x98
  view.setUint16(optional, 0x20b, true)
  view.setUint32(optional + 60, 0x200, true) // headers
  view.setUint32(optional + 108, 16, true) // directories
  view.setUint32(optional + 144, 0x800, true)
  view.setUint32(optional + 148, certificate.length, true)
  for (const [index, offset] of [0x500, 0x200].entries()) {
    const header = optional + 0xf0 + 40 * index
    view.setUint32(header + 16, index === 0 ? 0x200 : 0x300, true)
    view.setUint32(header + 20, offset, true)
  }
  return Buffer.concat([image, certificate])
}

test('the Authenticode digest leaves out checksum, certificate entry and certificates, and nothing else', (t) => {
  const plain = toHex(authenticodeSha256(peImage()))
  t.is(toHex(authenticodeSha256(peImage(new Uint8Array(64).fill(7)))), plain)
  const optional = 0x98
  const ignored = new Set<number>()
  for (let index = 0; index < 4; index++) ignored.add(optional + 64 + index)
  for (let index = 0; index < 8; index++) ignored.add(optional + 144 + index)
  const structural = new Set([0x3c, 0x3d, 0x3e, 0x3f])
  for (let index = 0; index < 0x800; index += 3) {
    if (structural.has(index) || (index >= 0x80 && index < 0x200)) continue
    const changed = peImage()
    changed[index] = (changed[index] ?? 0) ^ 1
    t.not(toHex(authenticodeSha256(changed)), plain, `byte ${index}`)
  }
  for (const index of ignored) {
    const changed = peImage()
    if (index >= optional + 148) continue // the size, which says what is left out
    changed[index] = (changed[index] ?? 0) ^ 1
    t.is(toHex(authenticodeSha256(changed)), plain, `byte ${index}`)
  }
})

test('a PE image cut anywhere, or with offsets beyond its end, is refused', (t) => {
  const image = peImage()
  for (let length = 0; length < 0x700; length += 11) {
    t.throws(() => authenticodeSha256(image.subarray(0, length)), { instanceOf: MalformedError }, `${length} bytes`)
  }
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(0x1ff), fc.nat(255)), { maxLength: 5 }), (changes) => {
      const changed = peImage()
      for (const [at, value] of changes) changed[at] = value
      try {
        authenticodeSha256(changed)
      } catch (error) {
        if (!(error instanceof MalformedError)) throw error
      }
    }),
  )
})

test('QEMU’s four changes of the setup header are made, and no others', (t) => {
  const kernel = new Uint8Array(0x2000)
  const view = new DataView(kernel.buffer)
  view.setUint32(0x202, 0x53726448, true)
  view.setUint16(0x206, 0x20f, true)
  kernel[0x211] = 1
  const loaded = kernelAsLoaded(kernel)
  const changed = [...loaded.keys()].filter((index) => loaded[index] !== kernel[index])
  t.deepEqual(changed, [0x210, 0x211, 0x225, 0x22a])
  t.is(loaded[0x211], 0x81)
  t.throws(() => kernelAsLoaded(new Uint8Array(0x2000)), { code: 'ERR_KERNEL_IMAGE' })
  view.setUint16(0x206, 0x201, true)
  t.throws(() => kernelAsLoaded(kernel), { code: 'ERR_KERNEL_IMAGE' })
})

test('the recorded command line gives the digest that the kernel measured', (t) => {
  const digest = createHash('sha256').update(loadOptions(recorded.commandLine)).digest('hex')
  const measured = log.events.find(({ pcr }) => pcr === 9)
  t.is(digest, toHex(measured?.digests.sha256 ?? new Uint8Array()))
})

test('a command line that would not arrive as written is refused', (t) => {
  for (const line of ['café', 'a\tb', 'vga=ask', 'quiet vga=1', 'x'.repeat(2047)]) {
    t.throws(() => loadOptions(line), { instanceOf: UsageError, code: 'ERR_COMMAND_LINE' })
  }
  t.notThrows(() => loadOptions('nvga=1 dm-mod.create="root,,,ro,0 S verity"'))
})

test('what is no firmware, or firmware of an unknown build, is refused with what is known', (t) => {
  t.throws(() => unpackVolumes(new Uint8Array(0x1000)), { instanceOf: MalformedError, code: 'ERR_FIRMWARE' })
  const error = t.throws(() => measuredFirmware(new Uint8Array(), { vcpus: 1 }), { code: 'ERR_FIRMWARE_UNKNOWN' })
  t.true(error instanceof CaissonError && error.hint?.includes('Debian 12 ovmf'))
})

test('an event too few, too many or changed is named', (t) => {
  const events = log.events
    .filter(({ pcr }) => pcr === 4)
    .map(({ pcr, digests }) => ({
      pcr,
      type: 'T',
      description: 'd',
      digest: toHex(digests.sha256 ?? new Uint8Array()),
    }))
  const explain = (predicted: typeof events) => explainPcrMismatch({ pcr: 4, predicted, log, found: '' })
  t.regex(explain(events.slice(0, 2)).message, /has 3 events, predicted were 2/)
  const [first] = events
  if (first === undefined) return t.fail()
  t.regex(explain([...events, first]).message, /has 3 events, predicted were 4/)
  const kernel = { ...first, type: 'EV_EFI_BOOT_SERVICES_APPLICATION', digest: '00'.repeat(32) }
  t.is(explain([kernel, ...events.slice(1)]).message, 'another kernel image was started')
})

const digest = 'ab'.repeat(32)
const prediction = {
  sha256: Object.fromEntries([0, 2, 4, 7, 8, 9].map((pcr) => [pcr, digest])),
  events: [{ pcr: 0, type: 'EV_SEPARATOR', description: 'end', digest }],
}
const values = referenceValues('guest-1', prediction, {
  firmware: digest,
  kernel: digest,
  initdata: digest,
  cmdline: 'quiet',
  vcpus: 1,
})

test('reference values survive encoding and parsing, and the same values give the same text', (t) => {
  t.deepEqual(parseReferenceValues(encodeReferenceValues(values)), values)
  t.is(encodeReferenceValues(parseReferenceValues(encodeReferenceValues(values))), encodeReferenceValues(values))
})

test('reference values that leave out part of the boot, or have members nobody knows, are refused', (t) => {
  const changed = (change: (document: Record<string, Record<string, unknown>>) => void) => {
    const document = JSON.parse(encodeReferenceValues(values))
    change(document)
    return JSON.stringify(document)
  }
  const changes: ((document: Record<string, Record<string, unknown>>) => void)[] = [
    (document) => Object.assign(document, { version: 2 }),
    (document) => Object.assign(document, { platform: 'snp' }),
    (document) => Object.assign(document, { id: '../x' }),
    (document) => Object.assign(document, { onlyOnTuesdays: true }),
    (document) => Object.assign(document.pcrs ?? {}, { sha1: {} }),
    (document) => Object.assign(document.pcrs?.sha256 ?? {}, { 24: digest }),
    (document) => Object.assign(document.pcrs?.sha256 ?? {}, { 3: digest.toUpperCase() }),
    (document) => Object.assign(document.pcrs ?? {}, { sha256: { 0: digest } }),
    (document) => Object.assign(document.artefacts ?? {}, { vcpus: 0 }),
    (document) => Object.assign(document, { events: [{ pcr: 0, type: 'x', description: 'x' }] }),
  ]
  for (const change of changes) {
    t.throws(
      () => parseReferenceValues(changed(change)),
      { instanceOf: MalformedError, code: 'ERR_REFERENCE_VALUES' },
      String(change),
    )
  }
})

test('replaying events gives the PCR of the recorded boot', (t) => {
  const events = log.events.map(({ pcr, digests }) => ({ pcr, digest: toHex(digests.sha256 ?? new Uint8Array()) }))
  t.is(replay(events, 7), '65caf8dd1e0ea7a6347b635d2b379c93b9a1351edc2afc3ecda700e534eb3068')
})
