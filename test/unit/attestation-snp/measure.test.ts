/** Launch digests and ID blocks are those that recorded ones are, and what cannot be measured is refused. */
import { createPrivateKey, generateKeyPairSync, hash, type KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test from 'ava'
import { NO_COLLATERAL } from '#attestation/evidence/collateral'
import { createIdAuth, createIdBlock, idKeyDigest } from '#attestation/measure/snp/id-block'
import type { DirectBoot } from '#attestation/measure/snp/kernel-hashes'
import { firmwareDigest, measureSnpLaunch, type SnpLaunch } from '#attestation/measure/snp/launch-digest'
import { svsmSaveArea, type Vmm } from '#attestation/measure/snp/save-area'
import { measureSevLaunch } from '#attestation/measure/snp/sev-digest'
import { imageGpa, parseSevFirmware } from '#attestation/measure/snp/sev-firmware'
import { signatureOfVcpuType, vcpuSignature } from '#attestation/measure/snp/vcpu-types'
import { appraiseSnp } from '#attestation/snp/appraise'
import { snpEvidenceOf } from '#attestation/snp/parse/evidence'
import { parseIdAuth, parseIdBlock } from '#attestation/snp/parse/id-block'
import { concatBytes, fromBase64, fromHex, toBase64, toHex } from '#protocol/encoding'
import { UsageError } from '#protocol/errors'
import { AT, makeReport } from '../../fixtures/snp/amd-like.ts'

const read = (path: string): Uint8Array =>
  path === '/dev/null'
    ? new Uint8Array()
    : new Uint8Array(readFileSync(new URL(`../../vectors/${path}`, import.meta.url)))

interface DigestVector {
  readonly test: string
  readonly args: {
    readonly mode: 'SEV_SNP' | 'SEV_ES' | 'SEV'
    readonly vcpus: number
    readonly vcpu_sig: string | null
    readonly ovmf_file: string
    readonly kernel: string | null
    readonly initrd: string | null
    readonly append: string | null
    readonly guest_features: string
    readonly snp_ovmf_hash_str?: string
    readonly vmm_type?: Vmm
  }
  readonly expect: { readonly digest?: string; readonly error?: string }
}

const expected = JSON.parse(Buffer.from(read('snp/measure/_expected/launch-digests.json')).toString()) as {
  readonly note: string
  readonly 'sev-snp-measure (tests/test_guest.py)': readonly DigestVector[]
  readonly id_block: {
    readonly 'sev-snp-measure': Readonly<
      Record<'ld_b64' | 'id_key' | 'author_key' | 'id_block_b64' | 'id_key_hash_b64' | 'author_key_hash_b64', string>
    >
  }
}
const VECTORS = expected['sev-snp-measure (tests/test_guest.py)']

function bootOf({ kernel, initrd, append }: DigestVector['args']): { boot?: DirectBoot } {
  if (kernel === null) return {}
  return { boot: { kernel: read(kernel), ...(initrd === null ? {} : { initrd: read(initrd) }), cmdline: append ?? '' } }
}

function measure({ args }: DigestVector): Uint8Array {
  const firmware = read(args.ovmf_file)
  const signature = args.vcpu_sig === null ? 0 : signatureOfVcpuType(args.vcpu_sig)
  if (args.mode !== 'SEV_SNP') {
    const es = args.mode === 'SEV_ES' ? { es: { vcpus: args.vcpus, vcpuSignature: signature } } : {}
    return measureSevLaunch({ firmware, ...bootOf(args), ...es })
  }
  const digest = args.snp_ovmf_hash_str
  const launch: SnpLaunch = {
    firmware,
    ...bootOf(args),
    ...(digest === undefined ? {} : { firmwareDigest: fromHex(digest, 'firmware digest') }),
    vcpuSignature: signature,
    features: BigInt(args.guest_features),
    vmm: args.vmm_type ?? 'qemu',
  }
  return measureSnpLaunch(launch, { first: args.vcpus, last: args.vcpus })[0]?.measurement ?? new Uint8Array()
}

test('all recorded launch digests are there', (t) => {
  t.is(VECTORS.length, 11)
})

for (const vector of VECTORS) {
  test(`launch digest ${vector.test}`, (t) => {
    const { digest, error } = vector.expect
    if (error === undefined) t.is<string | undefined, string | undefined>(toHex(measure(vector)), digest)
    else t.throws(() => measure(vector), { instanceOf: UsageError, code: 'ERR_SNP_KERNEL_HASHES' })
  })
}

const OVMF = read('snp/measure/sev-snp-measure/fixtures/ovmf_AmdSev_suffix.bin')
const SIGNATURE = signatureOfVcpuType('EPYC-v4')
const digestOf = (launch: Partial<SnpLaunch>, vcpus = 1): string =>
  toHex(
    measureSnpLaunch({ firmware: OVMF, vcpuSignature: SIGNATURE, ...launch }, { first: vcpus, last: vcpus })[0]
      ?.measurement ?? new Uint8Array(),
  )

test('the digest of the firmware’s own pages is the recorded one, and spares hashing them again', (t) => {
  const digest = firmwareDigest(OVMF)
  t.true(expected.note.includes(toHex(digest)))
  t.is(digestOf({ firmwareDigest: digest }), digestOf({}))
})

test('one pass gives the digest of every number of vCPUs', (t) => {
  const all = measureSnpLaunch({ firmware: OVMF, vcpuSignature: SIGNATURE }, { first: 1, last: 64 })
  t.deepEqual(
    all.map(({ vcpus }) => vcpus),
    Array.from({ length: 64 }, (_, index) => index + 1),
  )
  t.is(new Set(all.map(({ measurement }) => toHex(measurement))).size, 64)
  for (const vcpus of [1, 2, 17, 64]) t.is(toHex(all[vcpus - 1]?.measurement ?? new Uint8Array()), digestOf({}, vcpus))
})

test('everything that the host could change changes the digest', (t) => {
  const kernel = Uint8Array.of(1)
  const boot = (change: Partial<DirectBoot>): Partial<SnpLaunch> => ({ boot: { kernel, cmdline: 'a', ...change } })
  const firmware = OVMF.slice()
  firmware[0] = (firmware[0] ?? 0) ^ 1
  const launches: readonly Partial<SnpLaunch>[] = [
    {},
    { firmware },
    { vcpuSignature: signatureOfVcpuType('EPYC-Milan') },
    { features: 0x21n },
    { vmm: 'ec2' },
    { vmm: 'gce' },
    boot({}),
    boot({ kernel: Uint8Array.of(2) }),
    boot({ cmdline: 'b' }),
    boot({ initrd: Uint8Array.of(1) }),
  ]
  t.is(new Set(launches.map((launch) => digestOf(launch))).size, launches.length)
  t.is(digestOf(boot({ initrd: new Uint8Array() })), digestOf(boot({})))
})

test('vCPU types have the signatures of their processors, in whatever case', (t) => {
  const known: Readonly<Record<string, number>> = {
    EPYC: 0x800f12,
    'EPYC-v5': 0x800f12,
    'EPYC-IBPB': 0x800f12,
    'EPYC-Rome': 0x830f10,
    'EPYC-Rome-v5': 0x830f10,
    'EPYC-Milan-v2': 0xa00f11,
    'epyc-genoa-v1': 0xa10f10,
    'EPYC-Turin': 0xb00f00,
  }
  for (const [name, signature] of Object.entries(known)) t.is(signatureOfVcpuType(name), signature)
  t.is(vcpuSignature({ family: 14, model: 1, stepping: 2 }), 0xe12)
  t.throws(() => signatureOfVcpuType('EPYC-v9'), { code: 'ERR_SNP_VCPU_TYPE' })
  t.throws(() => signatureOfVcpuType('constructor'), { code: 'ERR_SNP_VCPU_TYPE' })
})

test('what cannot be measured is refused', (t) => {
  const range = (first: number, last: number) => (): unknown =>
    measureSnpLaunch({ firmware: OVMF, vcpuSignature: SIGNATURE }, { first, last })
  for (const [first, last] of [
    [0, 1],
    [2, 1],
    [1, 5000],
    [1.5, 2],
  ] as const) {
    t.throws(range(first, last), { code: 'ERR_VCPU_COUNT' })
  }
  t.throws(() => digestOf({ features: 0x20n }), { code: 'ERR_SNP_FEATURES' })
  t.throws(() => digestOf({ firmwareDigest: new Uint8Array(32) }), { code: 'ERR_SNP_DIGEST' })
  t.throws(() => digestOf({ boot: { kernel: new Uint8Array(), cmdline: 'a\0b' } }), { code: 'ERR_SNP_CMDLINE' })
  t.throws(() => digestOf({ firmware: new Uint8Array(100) }), { code: 'ERR_SNP_FIRMWARE' })
  t.notThrows(() => digestOf({ firmware: new Uint8Array(8192) }))
  t.throws(() => digestOf({ firmware: new Uint8Array(8192) }, 2), { code: 'ERR_SNP_RESET_BLOCK' })
})

const SVSM_LAUNCH_OFFSET = 0x40

/** An SVSM image: a table that says where it starts, and one section. */
function svsmImage(): Uint8Array {
  const image = new Uint8Array(8192).fill(0x90)
  const metadata = 0x1000
  const words = [0x5645_5341, 28, 1, 1, 0x10000, 4096, 4]
  for (const [index, word] of words.entries()) new DataView(image.buffer).setUint32(metadata + 4 * index, word, true)
  const entry = (data: Uint8Array, guid: string): Uint8Array =>
    concatBytes(data, Uint8Array.of(data.length + 18, 0), fromHex(guid, 'GUID'))
  const u32 = (value: number): Uint8Array => Uint8Array.of(value & 255, (value >> 8) & 255, value >> 16, 0)
  const entries = concatBytes(
    entry(u32(image.length - metadata), '666588dc4a989847a75e5585a7bf67cc'),
    entry(u32(SVSM_LAUNCH_OFFSET), '12a689a797054b4ca49fcbb1fe9d1ddd'),
  )
  const footer = concatBytes(Uint8Array.of(entries.length + 18, 0), fromHex('de82b596b21ff745baeaa366c55a082d', 'GUID'))
  image.set(concatBytes(entries, footer), image.length - 32 - entries.length - footer.length)
  return image
}

test('an SVSM is measured behind the firmware, with its own metadata and its own start', (t) => {
  const image = svsmImage()
  const varsBytes = 0x2000
  const gpa = imageGpa(OVMF) - varsBytes - image.length
  // The same by hand: each page's type, address and contents into the next digest.
  let digest: Uint8Array = firmwareDigest(OVMF)
  const add = (type: number, at: bigint, contents: Uint8Array): void => {
    const rest = new Uint8Array(16)
    new DataView(rest.buffer).setUint32(0, 0x70 | (type << 16), true)
    new DataView(rest.buffer).setBigUint64(8, at, true)
    digest = hash('sha384', concatBytes(digest, contents, rest), 'buffer')
  }
  const sha384 = (bytes: Uint8Array): Uint8Array => hash('sha384', bytes, 'buffer')
  add(1, BigInt(gpa), sha384(image.subarray(0, 4096)))
  add(1, BigInt(gpa) + 4096n, sha384(image.subarray(4096)))
  add(3, 0x10000n, new Uint8Array(48))
  const start = svsmSaveArea({ eip: gpa + SVSM_LAUNCH_OFFSET, features: 1n, signature: SIGNATURE, vmm: 'qemu' })
  add(2, 0xffff_ffff_f000n, sha384(start))
  add(2, 0xffff_ffff_f000n, sha384(start))
  t.is(digestOf({ svsm: { image, varsBytes } }, 2), toHex(digest))
})

test('an SVSM that cannot be measured is refused', (t) => {
  const image = svsmImage()
  const svsm = { image, varsBytes: 0 }
  t.throws(() => digestOf({ svsm, boot: { kernel: new Uint8Array(), cmdline: '' } }), { code: 'ERR_SNP_SVSM' })
  t.throws(() => digestOf({ svsm, vmm: 'ec2' }), { code: 'ERR_SNP_SVSM' })
  t.throws(() => digestOf({ svsm: { image: OVMF, varsBytes: 0 } }), { code: 'ERR_SNP_SVSM' })
  t.throws(() => digestOf({ svsm: { image, varsBytes: 100 } }), { code: 'ERR_SNP_SVSM' })
})

test('firmware whose tables contradict themselves is refused', (t) => {
  const patched = (offset: number, ...bytes: readonly number[]): Uint8Array => {
    const image = OVMF.slice()
    image.set(bytes, offset)
    return image
  }
  const footer = OVMF.length - 32 - 18
  t.notThrows(() => parseSevFirmware(OVMF))
  t.throws(() => parseSevFirmware(patched(footer, 5, 0)), { code: 'ERR_SNP_FIRMWARE' })
  t.throws(() => parseSevFirmware(patched(footer, 0xff, 0xff)), { code: 'ERR_SNP_FIRMWARE' })
  t.throws(() => parseSevFirmware(patched(footer - 18, 1, 0)), { code: 'ERR_SNP_FIRMWARE' })
  const at = Buffer.from(OVMF).indexOf('ASEV')
  t.true(at > 0)
  t.throws(() => parseSevFirmware(patched(at, 0)), { code: 'ERR_SNP_FIRMWARE' })
  t.throws(() => parseSevFirmware(patched(at + 8, 2)), { code: 'ERR_SNP_FIRMWARE' })
  t.throws(() => parseSevFirmware(patched(at + 12, 0xff)), { code: 'ERR_SNP_FIRMWARE' })
  t.throws(() => parseSevFirmware(patched(at + 16, 1)), { code: 'ERR_SNP_FIRMWARE' })
  t.throws(() => parseSevFirmware(patched(at + 24, 9)), { code: 'ERR_SNP_FIRMWARE' })
})

const idVector = expected.id_block['sev-snp-measure']
const keyOf = (path: string): KeyObject => createPrivateKey(Buffer.from(read(path)).toString())

test('ID block and digests of keys are the recorded ones', (t) => {
  const block = createIdBlock({ launchDigest: fromBase64(idVector.ld_b64, 'launch digest') })
  t.is(toBase64(block), idVector.id_block_b64)
  t.is(toBase64(idKeyDigest(keyOf(idVector.id_key))), idVector.id_key_hash_b64)
  t.is(toBase64(idKeyDigest(keyOf(idVector.author_key))), idVector.author_key_hash_b64)
})

const POLICY = 0x30000n
const idKey = keyOf(idVector.id_key)
const authorKey = keyOf(idVector.author_key)
const LAUNCH_DIGEST = new Uint8Array(48).fill(0xab)

/** Codes for a report of a guest that was launched from an ID block, given that block or another as collateral. */
function judge(
  document: { block: Uint8Array; auth: Uint8Array } | undefined,
  patch: Partial<{ author: boolean }> = {},
) {
  const withAuthor = patch.author ?? true
  const report = makeReport({
    tcb: new Uint8Array(8),
    cpuid: [0x19, 1, 1],
    policy: POLICY,
    measurement: LAUNCH_DIGEST,
    keyInfo: withAuthor ? 1 : 0,
    idKeyDigest: idKeyDigest(idKey),
    ...(withAuthor ? { authorKeyDigest: idKeyDigest(authorKey) } : {}),
  })
  const text =
    document && JSON.stringify({ id_block: toBase64(document.block), id_auth: toBase64(document.auth), other: 1 })
  const documents = text === undefined ? [] : [{ name: 'id-block.json', text }]
  const context = { at: AT, nonce: undefined, collateral: { ...NO_COLLATERAL, documents }, anchors: [] }
  return appraiseSnp(snpEvidenceOf(report, []), context).findings.map(({ code, found }) => `${code}: ${found ?? ''}`)
}

test('a report agrees with the ID block that its guest was launched from, and with no other', (t) => {
  const block = createIdBlock({ launchDigest: LAUNCH_DIGEST, policy: POLICY })
  const auth = createIdAuth(block, { idKey, authorKey })
  t.deepEqual(parseIdBlock(block).launchDigest, LAUNCH_DIGEST)
  t.not(parseIdAuth(auth).author, undefined)
  const unchecked = 'unchecked_chain: none'
  t.deepEqual(judge(undefined), [unchecked])
  t.deepEqual(judge({ block, auth }), [unchecked])
  t.deepEqual(judge({ block, auth: createIdAuth(block, { idKey }) }, { author: false }), [unchecked])

  const mismatch = (what: string): string[] => [unchecked, `id_block_mismatch: disagreement about ${what}`]
  const other = createIdBlock({ launchDigest: LAUNCH_DIGEST, policy: POLICY, guestSvn: 1 })
  t.deepEqual(judge({ block: other, auth: createIdAuth(other, { idKey, authorKey }) }), mismatch('guest SVN'))
  t.deepEqual(judge({ block, auth: createIdAuth(other, { idKey, authorKey }) }), mismatch('signature of the ID block'))
  t.deepEqual(judge({ block, auth: createIdAuth(block, { idKey }) }), mismatch('use of an author key'))
  const stranger = generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey
  t.deepEqual(
    judge({ block, auth: createIdAuth(block, { idKey, authorKey: stranger }) }),
    mismatch('digest of the author key'),
  )
  const spliced = createIdAuth(block, { idKey, authorKey })
  spliced.set(createIdAuth(block, { idKey: stranger, authorKey }).subarray(0x680, 0x880), 0x680)
  t.deepEqual(judge({ block, auth: spliced }), mismatch('signature of the ID key'))
  const different = createIdBlock({
    launchDigest: new Uint8Array(48),
    familyId: new Uint8Array(16).fill(1),
    imageId: new Uint8Array(16).fill(2),
    policy: 0x70000n,
  })
  t.deepEqual(
    judge({ block: different, auth: createIdAuth(different, { idKey: stranger, authorKey }) }),
    mismatch('launch digest, family id, image id, guest policy, digest of the ID key'),
  )
})

test('no byte of an ID authentication can be changed unnoticed', (t) => {
  const block = createIdBlock({ launchDigest: LAUNCH_DIGEST, policy: POLICY })
  const auth = createIdAuth(block, { idKey, authorKey })
  const unnoticed: number[] = []
  for (let at = 0; at < auth.length; at += at % 0x100 > 0x90 ? 7 : 1) {
    const changed = auth.slice()
    changed[at] = (changed[at] ?? 0) ^ 1
    try {
      if (judge({ block, auth: changed }).length === 1) unnoticed.push(at)
    } catch {
      // refused as malformed
    }
  }
  t.deepEqual(unnoticed, [])
})

test('an ID block that cannot be made is refused', (t) => {
  const launchDigest = LAUNCH_DIGEST
  t.throws(() => createIdBlock({ launchDigest: new Uint8Array(47) }), { code: 'ERR_SNP_ID_BLOCK' })
  t.throws(() => createIdBlock({ launchDigest, familyId: new Uint8Array(15) }), { code: 'ERR_SNP_ID_BLOCK' })
  t.throws(() => createIdBlock({ launchDigest, imageId: new Uint8Array(17) }), { code: 'ERR_SNP_ID_BLOCK' })
  t.throws(() => createIdBlock({ launchDigest, guestSvn: 2 ** 32 }), { code: 'ERR_SNP_ID_BLOCK' })
  t.throws(() => createIdBlock({ launchDigest, policy: 2n ** 64n }), { code: 'ERR_SNP_ID_BLOCK' })
  const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  t.throws(() => createIdAuth(new Uint8Array(96), { idKey: p256 }), { code: 'ERR_SNP_ID_KEY' })
})
