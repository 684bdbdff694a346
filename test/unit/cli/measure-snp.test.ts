/** `caisson measure snp` and `caisson measure id-block`, as programs call them. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { parseReferenceDocument } from '#attestation/measure/reference-document'
import { vcpusBeyond } from '#attestation/measure/snp/reference-values'
import { type CommandSpec, parseInvocation } from '#cli/command'
import { measureIdBlock } from '#cli/commands/measure-id-block'
import { measureSnp } from '#cli/commands/measure-snp'
import { Output } from '#cli/output'
import { UsageError } from '#protocol/errors'

const vectors = new URL('../../vectors/', import.meta.url)
const path = (file: string): string => new URL(file, vectors).pathname
const OVMF = path('snp/measure/sev-snp-measure/fixtures/ovmf_AmdSev_suffix.bin')

class Captured extends Output {
  text = ''

  override write(text: string | Uint8Array): void {
    this.text += typeof text === 'string' ? text : Buffer.from(text).toString()
  }
}

async function run(spec: CommandSpec, words: readonly string[], json = true): Promise<string> {
  const out = new Captured(json)
  if ((await spec.run(parseInvocation(spec, words, out))) !== 0) throw new Error('not 0')
  return out.text
}

const snp = async (...words: readonly string[]): Promise<Record<string, unknown>> =>
  JSON.parse(await run(measureSnp, ['--ovmf', OVMF, ...words])) as Record<string, unknown>

interface Digests {
  readonly 'sev-snp-measure (tests/test_guest.py)': readonly {
    readonly args: Readonly<Record<string, string | number | null>>
    readonly expect: { readonly digest?: string }
  }[]
  readonly id_block: { readonly 'sev-snp-measure': Readonly<Record<string, string>> }
}

const expected = JSON.parse(readFileSync(path('snp/measure/_expected/launch-digests.json'), 'utf8')) as Digests

for (const [index, { args, expect }] of expected['sev-snp-measure (tests/test_guest.py)'].entries()) {
  if (expect.digest === undefined) continue
  test(`measure snp prints the recorded digest ${index}`, async (t) => {
    const option = (name: string, value: string | number | null | undefined): string[] =>
      value === null || value === undefined ? [] : [`--${name}`, String(value)]
    const result = JSON.parse(
      await run(measureSnp, [
        ...option('ovmf', path(String(args.ovmf_file))),
        ...option('mode', String(args.mode).toLowerCase().replace('sev_snp', 'snp').replace('_', '-')),
        ...option('kernel', args.kernel),
        ...option('initrd', args.initrd),
        ...option('append', args.append),
        ...option('vcpus', args.vcpus),
        ...option('vcpu-type', args.vcpu_sig),
        ...option('guest-features', args.guest_features),
        ...option('ovmf-hash', args.snp_ovmf_hash_str),
        ...option('vmm-type', args.vmm_type),
      ]),
    ) as Record<string, unknown>
    t.is(result.measurement, expect.digest)
    t.is(result.vcpus, Number(args.vcpus))
  })
}

test('a range of vCPUs gives a list of all of them, in JSON and in lines', async (t) => {
  const { measurements } = await snp('--vcpus', '1-64', '--vcpu-type', 'EPYC-v4')
  const list = measurements as { vcpus: number; measurement: string }[]
  t.deepEqual(
    list.map(({ vcpus }) => vcpus),
    Array.from({ length: 64 }, (_, index) => index + 1),
  )
  const four = await snp('--vcpus', '4', '--vcpu-sig', '0x800f12')
  t.is(list[3]?.measurement, String(four.measurement))
  t.deepEqual((await snp('--vcpus', '4-4', '--vcpu-type', 'EPYC-v4')).measurements, [list[3]])
  const lines = await run(measureSnp, ['--ovmf', OVMF, '--vcpus', '1-2', '--vcpu-type', 'EPYC-v4'], false)
  t.is(lines, `1 ${list[0]?.measurement}\n2 ${list[1]?.measurement}\n`)
})

test('what measure snp prints is a document of reference values, and tells other numbers of vCPUs from other guests', async (t) => {
  const words = ['--vcpu-type', 'EPYC-v4', '--id', 'web'] as const
  const document = parseReferenceDocument(JSON.stringify(await snp('--vcpus', '1-2', ...words)))
  t.like(document, { platform: 'snp', id: 'web', variants: [{ vcpus: 1 }, { vcpus: 2 }] })
  if (document.platform !== 'snp') throw new Error('not SNP')
  const four = await snp('--vcpus', '4', ...words)
  t.is(vcpusBeyond(document, String(four.measurement)), 4)
  const other = await snp('--vcpus', '4', '--vcpu-type', 'EPYC-Milan')
  t.is(vcpusBeyond(document, String(other.measurement)), undefined)
  t.like(parseReferenceDocument(JSON.stringify(four)), { variants: [{ vcpus: 4, measurement: four.measurement }] })
})

test('words that measure nothing are wrong usage', async (t) => {
  const wrong: readonly (readonly string[])[] = [
    ['--vcpus', '0', '--vcpu-type', 'EPYC'],
    ['--vcpus', '3-2', '--vcpu-type', 'EPYC'],
    ['--vcpus', '1-', '--vcpu-type', 'EPYC'],
    ['--vcpus', '1-9999', '--vcpu-type', 'EPYC'],
    ['--vcpus', '1'],
    ['--vcpu-type', 'EPYC', '--vcpu-sig', '0x1'],
    ['--vcpu-type', 'Opteron'],
    ['--vcpu-type', 'EPYC', '--initrd', '/dev/null'],
    ['--vcpu-type', 'EPYC', '--append', 'a'],
    ['--vcpu-type', 'EPYC', '--vmm-type', 'xen'],
    ['--vcpu-type', 'EPYC', '--guest-features', 'all'],
    ['--vcpu-type', 'EPYC', '--mode', 'tdx'],
    ['--vcpu-sig', '0x123456789'],
    ['--vcpu-type', 'EPYC', '--kernel', '/nonexistent'],
  ]
  for (const words of wrong) await t.throwsAsync(snp(...words), { instanceOf: UsageError }, words.join(' '))
})

const id = expected.id_block['sev-snp-measure']

test('measure id-block prints the recorded block and digests, and writes them as collateral', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'id-block-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'id-block.json')
  const keys = ['--id-key', path(id.id_key ?? ''), '--author-key', path(id.author_key ?? '')]
  const text = await run(measureIdBlock, ['--measurement', id.ld_b64 ?? '', ...keys, '-o', file])
  const result = JSON.parse(text) as Record<string, string>
  t.is(result.id_block, id.id_block_b64)
  const hex = (base64 = ''): string => Buffer.from(base64, 'base64').toString('hex')
  t.is(result.id_key_digest, hex(id.id_key_hash_b64))
  t.is(result.author_key_digest, hex(id.author_key_hash_b64))
  t.is(Buffer.from(result.id_auth ?? '', 'base64').length, 4096)
  t.deepEqual(JSON.parse(readFileSync(file, 'utf8')), result)
  const fromHexDigest = await run(measureIdBlock, ['--measurement', hex(id.ld_b64), ...keys])
  t.is((JSON.parse(fromHexDigest) as Record<string, string>).id_block, id.id_block_b64)
})

test('an ID block is not made with a key of another kind, or fields that do not fit', async (t) => {
  const make = (...words: readonly string[]): Promise<string> =>
    run(measureIdBlock, ['--measurement', 'ab'.repeat(48), '--id-key', path(id.id_key ?? ''), ...words])
  await t.notThrowsAsync(make('--family-id', '01'.repeat(16), '--image-id', '02'.repeat(16), '--guest-svn', '2'))
  await t.throwsAsync(make('--family-id', '01'), { code: 'ERR_SNP_ID_BLOCK' })
  await t.throwsAsync(make('--policy', 'none'), { code: 'ERR_USAGE' })
  await t.throwsAsync(make('--guest-svn', '-1'), { instanceOf: UsageError })
  await t.throwsAsync(make('--author-key', OVMF), { code: 'ERR_SNP_ID_KEY' })
})
