/** MRTD and RTMRs predicted: beside a second implementation written for these tests, and beside recorded event logs. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { kernelWithInitrd } from '#attestation/measure/tdx/linux-boot'
import { predictMrtd } from '#attestation/measure/tdx/mrtd'
import { FIRMWARE_VARIANTS, predictRtmrs, type TdArtefacts } from '#attestation/measure/tdx/predict-rtmrs'
import { tdHob } from '#attestation/measure/tdx/td-hob'
import { parseTdvf } from '#attestation/measure/tdx/tdvf'
import { type EventLog, parseEventLog } from '#attestation/tpm/parse/event-log'
import { concatBytes, toHex } from '#protocol/encoding'
import { UsageError } from '#protocol/errors'
import { le } from '../../fixtures/tdx/quote-maker.ts'
import { makeKernel, makeTdvf, ovmfSections, type SectionSpec } from '../../fixtures/tdx/tdvf-maker.ts'
import { refusesOrKeeps } from '../parser-property.ts'

const content = Uint8Array.from({ length: 5 * 4096 + 300 }, (_, index) => (index * 7) & 0xff)
const variables = new Uint8Array(2 * 4096).fill(0xff)
const sections = ovmfSections(content, variables)
const image = makeTdvf(sections)

/** The specification's words once more, in the simplest way: all that is hashed, as one string of bytes. */
function mrtdAgain(specs: readonly SectionSpec[], bySection: boolean): string {
  const hashed: Uint8Array[] = []
  const record = (name: string, gpa: bigint): Uint8Array =>
    concatBytes(Buffer.from(name.padEnd(16, '\0')), le(gpa, 8), new Uint8Array(104))
  for (const { gpa, memoryBytes, attributes, data } of specs) {
    const memory = new Uint8Array(memoryBytes)
    memory.set(data ?? new Uint8Array())
    const adds: Uint8Array[][] = []
    const extensions: Uint8Array[][] = []
    for (let page = 0; page < memoryBytes; page += 4096) {
      adds.push((attributes & 2) === 0 ? [record('MEM.PAGE.ADD', gpa + BigInt(page))] : [])
      const chunks: Uint8Array[] = []
      for (let at = page; (attributes & 1) !== 0 && at < page + 4096; at += 256) {
        chunks.push(record('MR.EXTEND', gpa + BigInt(at)), memory.subarray(at, at + 256))
      }
      extensions.push(chunks)
    }
    const pages = adds.map((add, index) => [...add, ...(extensions[index] ?? [])])
    hashed.push(...(bySection ? [...adds, ...extensions] : pages).flat())
  }
  return createHash('sha384')
    .update(concatBytes(...hashed))
    .digest('hex')
}

test('MRTD is what a second implementation computes, in both orders and for both kinds of image', (t) => {
  const augmented: SectionSpec[] = [...sections, { type: 4, gpa: 0x1000000n, memoryBytes: 0x3000, attributes: 2 }]
  for (const specs of [sections, augmented]) {
    for (const form of ['table', 'td-shim'] as const) {
      const tdvf = parseTdvf(makeTdvf(specs, form))
      t.is(toHex(predictMrtd(tdvf)), mrtdAgain(specs, false))
      t.is(toHex(predictMrtd(tdvf, 'section')), mrtdAgain(specs, true))
    }
  }
})

test('MRTD changes with every byte of measured firmware, and with no byte of the variable store', (t) => {
  const mrtd = toHex(predictMrtd(parseTdvf(image)))
  for (const at of [0, 255, 256, content.length - 1]) {
    const changed = content.slice()
    changed[at] = (changed[at] ?? 0) ^ 1
    t.not(toHex(predictMrtd(parseTdvf(makeTdvf(ovmfSections(changed, variables))))), mrtd)
  }
  const other = makeTdvf(ovmfSections(content, new Uint8Array(variables.length)))
  t.is(toHex(predictMrtd(parseTdvf(other))), mrtd)
})

const recorded = (path: string): EventLog =>
  parseEventLog(new Uint8Array(readFileSync(new URL(`../../vectors/tdx/${path}`, import.meta.url))))
const directBoot = recorded('trustee/deps/eventlog/test_data/CCEL_data_ovmf')
const digestsOf = ({ events }: EventLog, rtmr: number): string[] =>
  events.filter(({ pcr }) => pcr === rtmr + 1).map(({ digests }) => toHex(digests.sha384 ?? new Uint8Array()))

const boot = { kernel: makeKernel(), initrd: new Uint8Array(5000).fill(7), cmdline: 'console=hvc0 root=/dev/vda' }
const artefacts: TdArtefacts = { tdvf: parseTdvf(image), boot, memoryMib: 2048 }

test('the events of a recorded direct boot are predicted in their order, all but those whose inputs are not recorded', (t) => {
  const prediction = predictRtmrs(artefacts, { kernel: 'patched', separator: 'rtmr0' })
  // The log is of another variable store, machine and kernel; its TD HOB says 2 GiB.
  const unknown = /CFV|ACPI|kernel image|load options|initrd/
  for (const rtmr of [0, 1, 2]) {
    const predicted = prediction.events.filter((event) => event.rtmr === rtmr)
    const found = digestsOf(directBoot, rtmr)
    t.is(predicted.length, found.length, `RTMR${rtmr}`)
    for (const [index, { description, digest }] of predicted.entries()) {
      if (!unknown.test(description)) t.is(digest, found[index], description)
    }
  }
})

test('the memory that QEMU tells a TD of ends in one piece below 2816 MiB, and in two from there', (t) => {
  const tdvf = parseTdvf(image)
  const size = (memoryMib: number): number => tdHob(tdvf, memoryMib).length
  t.is(size(2048), 56 + 8 * 48)
  t.is(size(2815), size(2048))
  t.is(size(2816), size(2048) + 48)
  t.not(toHex(tdHob(tdvf, 4096)), toHex(tdHob(tdvf, 4097)))
  for (const memoryMib of [0, 63, 1.5, Number.NaN, 2 ** 40]) {
    t.throws(() => tdHob(tdvf, memoryMib), { instanceOf: UsageError, code: 'ERR_MEMORY_SIZE' })
  }
})

test('registers follow from their events, and are unknown as long as one of those is', (t) => {
  const [variant] = FIRMWARE_VARIANTS
  if (variant === undefined) throw new Error('no variant')
  const without = predictRtmrs(artefacts, variant)
  t.is(without.rtmrs[0], undefined)
  t.is(without.rtmrs[3], '00'.repeat(48))
  const acpi = { loader: Uint8Array.of(1), rsdp: Uint8Array.of(2), tables: Uint8Array.of(3) }
  const whole = predictRtmrs({ ...artefacts, acpi }, variant)
  for (const rtmr of [0, 1, 2]) {
    let value = Buffer.alloc(48)
    for (const { digest = '' } of whole.events.filter((event) => event.rtmr === rtmr)) {
      value = createHash('sha384').update(value).update(Buffer.from(digest, 'hex')).digest()
    }
    t.is(whole.rtmrs[rtmr], value.toString('hex'))
  }
  t.deepEqual(without.rtmrs.slice(1), whole.rtmrs.slice(1))
  const firmwareOnly = predictRtmrs({ tdvf: artefacts.tdvf }, variant)
  t.deepEqual(firmwareOnly.rtmrs.slice(0, 3), [undefined, undefined, undefined])
})

test('kernel, initrd and command line each change the registers they are measured into', (t) => {
  const rtmrs = (changed: object): readonly (string | undefined)[] =>
    predictRtmrs({ ...artefacts, boot: { ...boot, ...changed } }, { kernel: 'unchanged', separator: 'rtmr1' }).rtmrs
  const same = rtmrs({})
  const kernel = makeKernel()
  kernel[0x2000] = 1
  t.not(rtmrs({ kernel })[1], same[1])
  t.is(rtmrs({ kernel })[2], same[2])
  for (const changed of [
    { cmdline: `${boot.cmdline} ` },
    { initrd: new Uint8Array(5000) },
    { initrd: new Uint8Array() },
  ]) {
    t.is(rtmrs(changed)[1], same[1])
    t.not(rtmrs(changed)[2], same[2])
  }
})

test('a kernel is told where its initrd is, below the memory’s end and what is kept for ACPI', (t) => {
  const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer)
  const at = (kernel: Uint8Array, memoryMib: number): number =>
    view(kernelWithInitrd(kernel, 5000, memoryMib)).getUint32(0x218, true)
  const wanted = (low: number): number => Math.floor((low - 0x28000 - 1 - 5000) / 4096) * 4096
  t.is(at(makeKernel(), 1024), wanted(1024 * 2 ** 20))
  t.is(at(makeKernel(), 2048), wanted(0x8000_0000))
  t.is(at(makeKernel(), 65536), wanted(0x8000_0000))
  t.is(at(makeKernel(), 2815), wanted(2815 * 2 ** 20))
  t.is(at(makeKernel(0x20a), 65536), wanted(0x8000_0000))
  t.is(view(kernelWithInitrd(makeKernel(), 5000, 2048)).getUint32(0x21c, true), 5000)
  t.deepEqual(kernelWithInitrd(makeKernel(), 0, 2048).slice(0x218, 0x220), new Uint8Array(8))
  t.throws(() => kernelWithInitrd(makeKernel(), 2 ** 30, 1024), { code: 'ERR_MEMORY_SIZE' })
})

test('firmware that is cut, contradicts itself or asks for too much memory is refused', (t) => {
  const descriptor = content.length + variables.length
  const changes: readonly (readonly [name: string, at: number, bytes: readonly number[]])[] = [
    ['signature', descriptor, [0]],
    ['version', descriptor + 8, [2]],
    ['no sections', descriptor + 12, [0]],
    ['too many sections', descriptor + 12, [200]],
    ['offset outside', descriptor + 16, [0xff, 0xff, 0xff, 0x7f]],
    ['size outside', descriptor + 20, [0xff, 0xff, 0xff, 0x7f]],
    ['not a page', descriptor + 24, [1]],
    ['less memory than content', descriptor + 32, [0, 0x10, 0]],
    ['huge memory', descriptor + 36, [0, 0, 1]],
    ['unknown type', descriptor + 40, [77]],
    ['unknown attributes', descriptor + 44, [4]],
    ['descriptor outside', image.length - 72, [0xff, 0xff, 0xff, 0x7f]],
  ]
  for (const [name, at, bytes] of changes) {
    const changed = image.slice()
    changed.set(bytes, at)
    t.throws(() => parseTdvf(changed), { code: 'ERR_TDVF' }, name)
  }
  t.throws(() => parseTdvf(new Uint8Array(4096)), { code: 'ERR_TDVF' })
  t.throws(() => parseTdvf(new Uint8Array(10)), { code: 'ERR_TDVF' })
})

test('any image is read to sections within it, or refused', (t) => {
  const tail = image.slice(-400)
  const changed = fc
    .tuple(fc.nat(tail.length - 1), fc.uint8Array({ minLength: 1, maxLength: 8 }))
    .map(([at, piece]) =>
      concatBytes(
        image.subarray(0, image.length - tail.length),
        tail.subarray(0, at),
        piece,
        tail.subarray(at + piece.length),
      ),
    )
  refusesOrKeeps(
    t,
    fc.oneof(
      changed,
      fc.uint8Array({ maxLength: 4096 }),
      fc.nat(image.length).map((length) => image.slice(0, length)),
    ),
    parseTdvf,
    ({ sections: found }) =>
      found.every(({ data, memoryBytes }) => data.length <= memoryBytes && memoryBytes % 4096 === 0),
  )
})
