/** `caisson measure tdx`, as programs and people call it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { predictMrtd } from '#attestation/measure/tdx/mrtd'
import { FIRMWARE_VARIANTS, predictRtmrs } from '#attestation/measure/tdx/predict-rtmrs'
import { parseTdvf } from '#attestation/measure/tdx/tdvf'
import { parseInvocation } from '#cli/command'
import { measureTdx } from '#cli/commands/measure-tdx'
import { Output } from '#cli/output'
import { toHex } from '#protocol/encoding'
import { UsageError } from '#protocol/errors'
import { makeKernel, makeTdvf, ovmfSections } from '../../fixtures/tdx/tdvf-maker.ts'

class Captured extends Output {
  text = ''

  override write(text: string | Uint8Array): void {
    this.text += typeof text === 'string' ? text : Buffer.from(text).toString()
  }
}

const folder = mkdtempSync(join(tmpdir(), 'caisson-measure-tdx-'))
test.after.always(() => rmSync(folder, { recursive: true }))

const image = makeTdvf(ovmfSections(new Uint8Array(8192).fill(3), new Uint8Array(4096)))
const kernel = makeKernel()
const initrd = new Uint8Array(100).fill(1)
const file = (name: string, bytes: Uint8Array): string => {
  writeFileSync(join(folder, name), bytes)
  return join(folder, name)
}
const tdvf = ['--tdvf', file('tdvf', image)]
const boot = ['--kernel', file('kernel', kernel), '--initrd', file('initrd', initrd), '--append', 'console=hvc0']
const acpi = ['loader', 'rsdp', 'tables'].flatMap((name) => [`--acpi-${name}`, file(name, Uint8Array.of(name.length))])

async function run(words: readonly string[], json = true): Promise<string> {
  const out = new Captured(json)
  if ((await measureTdx.run(parseInvocation(measureTdx, words, out))) !== 0) throw new Error('not 0')
  return out.text
}

test('measure tdx prints MRTD of a firmware alone, and null for what does not follow from it', async (t) => {
  const result = JSON.parse(await run(tdvf)) as Record<string, unknown>
  const mrtd = toHex(predictMrtd(parseTdvf(image)))
  t.is(result.mrtd, mrtd)
  t.is(result.measurement, mrtd)
  t.deepEqual([result.rtmr0, result.rtmr1, result.rtmr2], [null, null, null])
  t.is(result.rtmr3, '00'.repeat(48))
  const older = JSON.parse(await run([...tdvf, '--order', 'section'])) as Record<string, unknown>
  t.is(older.mrtd, toHex(predictMrtd(parseTdvf(image), 'section')))
})

test('measure tdx prints all registers of a direct boot, for each variant of firmware', async (t) => {
  const result = JSON.parse(await run([...tdvf, ...boot, '--memory', '4096', ...acpi])) as Record<string, unknown>
  const blobs = { loader: Uint8Array.of(6), rsdp: Uint8Array.of(4), tables: Uint8Array.of(6) }
  const artefacts = {
    tdvf: parseTdvf(image),
    boot: { kernel, initrd, cmdline: 'console=hvc0' },
    memoryMib: 4096,
    acpi: blobs,
  }
  const wanted = FIRMWARE_VARIANTS.map((variant) => predictRtmrs(artefacts, variant).rtmrs)
  t.deepEqual([result.rtmr0, result.rtmr1, result.rtmr2, result.rtmr3], wanted[0])
  const variants = result.variants as Record<string, unknown>[]
  t.deepEqual(
    variants.map(({ rtmr0, rtmr1, rtmr2, rtmr3 }) => [rtmr0, rtmr1, rtmr2, rtmr3]),
    wanted,
  )
  t.is(new Set(variants.map(({ rtmr1 }) => rtmr1)).size, 4)
})

test('measure tdx says for people what does not follow from what was given', async (t) => {
  const text = await run([...tdvf, ...boot], false)
  t.regex(text, /^MRTD {3}[0-9a-f]{96}$/m)
  t.regex(text, /^RTMR0 {2}does not follow/m)
  t.regex(text, /^RTMR2 {2}[0-9a-f]{96}$/m)
  t.true(text.includes('RTMR2 EV_EVENT_TAG: load options "console=hvc0 initrd=initrd"'))
})

test('measure tdx refuses options that mean nothing alone', async (t) => {
  for (const words of [
    ['--append', 'x'],
    ['--initrd', 'x'],
    acpi.slice(0, 2),
    ['--order', 'other'],
    ['--memory', '1'],
  ]) {
    await t.throwsAsync(run([...tdvf, ...words]), { instanceOf: UsageError, code: 'ERR_USAGE' })
  }
})
