/** What recorded evidence does not show: every version and product, leased keys, and each way in which a chain can be wrong. */
import test from 'ava'
import { type Collateral, NO_COLLATERAL } from '#attestation/evidence/collateral'
import type { AppraisalContext } from '#attestation/evidence/context'
import { type EvidenceVerdict, verdictOf } from '#attestation/evidence/verdict'
import { appraiseSnp } from '#attestation/snp/appraise'
import { snpEvidenceOf } from '#attestation/snp/parse/evidence'
import { VekChainCache } from '#attestation/snp/verify/vek-chain-cache'
import type { ParsedCertificate } from '#attestation/x509/certificate'
import type { ParsedCrl } from '#attestation/x509/crl'
import {
  AT,
  authorities,
  forgedCrl,
  makeReport,
  newVek,
  type ReportSpec,
  rootCrl,
  SERIAL,
  type VekSpec,
  vekCertificate,
} from '../../fixtures/snp/amd-like.ts'
import { integer } from '../../fixtures/x509/encode-der.ts'

type Product = VekSpec['product']

const CHIP = Uint8Array.from({ length: 64 }, (_, index) => index + 1)
const TURIN_CHIP = Uint8Array.from({ length: 64 }, (_, index) => (index < 8 ? index + 1 : 0))
const TCB = Uint8Array.of(4, 1, 0, 0, 0, 0, 24, 217)
const TURIN_TCB = Uint8Array.of(1, 2, 3, 4, 0, 0, 0, 71)
const CPUID: Readonly<Record<Product, readonly [number, number, number]>> = {
  Milan: [0x19, 0x01, 1],
  Genoa: [0x19, 0x11, 1],
  Turin: [0x1a, 0x02, 1],
}

interface Case {
  readonly product?: Product
  readonly report?: Partial<ReportSpec>
  readonly vek?: Partial<VekSpec>
  /** Replaces the certificate made from `vek`; null: none. */
  readonly certificate?: ParsedCertificate | null
  readonly crls?: readonly ParsedCrl[]
  readonly collateral?: Partial<Collateral>
  readonly anchors?: readonly ParsedCertificate[]
  readonly at?: Date
  readonly nonce?: Uint8Array
  readonly cache?: VekChainCache
}

/** Good evidence of version 3 with a VCEK and its collateral, changed as the case says. */
function judge(change: Case = {}): EvidenceVerdict {
  const { product = 'Milan', cache } = change
  const kind = change.vek?.kind ?? 'vcek'
  const tcb = product === 'Turin' ? TURIN_TCB : TCB
  const chipId = product === 'Turin' ? TURIN_CHIP : CHIP
  const chain = authorities(product)
  const report = makeReport({
    tcb,
    cpuid: change.report?.version === 2 ? [0, 0, 0] : CPUID[product],
    chipId: kind === 'vcek' ? chipId : new Uint8Array(64),
    keyInfo: kind === 'vcek' ? 0 : 1 << 2,
    ...change.report,
  })
  const identity =
    kind === 'vcek' ? { hwid: product === 'Turin' ? chipId.slice(0, 8) : chipId } : { cspId: 'cloud.example' }
  const vek = change.certificate ?? vekCertificate({ kind, product, tcb, ...identity, ...change.vek })
  const context: AppraisalContext = {
    at: change.at ?? AT,
    nonce: change.nonce,
    collateral: {
      ...NO_COLLATERAL,
      certificates: [...(change.certificate === null ? [] : [vek]), chain.ask, chain.asvk],
      crls: change.crls ?? [rootCrl(product)],
      ...change.collateral,
    },
    anchors: change.anchors ?? [chain.ark],
  }
  return verdictOf(appraiseSnp(snpEvidenceOf(report, []), context, cache))
}

const codes = ({ reasons }: EvidenceVerdict): string[] => reasons.map(({ code }) => code)

for (const product of ['Milan', 'Genoa', 'Turin'] as const) {
  for (const version of [2, 3, 4, 5]) {
    for (const kind of ['vcek', 'vlek'] as const) {
      test(`a report of version ${version} from ${product}, signed by a ${kind.toUpperCase()}, is affirmed`, (t) => {
        const verdict = judge({
          product,
          vek: { kind },
          report: { version, ...(version === 5 ? { mitigations: [5n, 7n], policy: 0x203_0000n } : {}) },
        })
        t.deepEqual(verdict.reasons, [])
        t.is(verdict.verdict, 'affirming')
        t.is(verdict.claims.product, product)
        t.is(verdict.claims.mitigations_current, version === 5 ? '0x0000000000000007' : null)
      })
    }
  }
}

test('each level of a TCB is read at the place that its product has for it', (t) => {
  const levels = (product: Product): unknown => judge({ product }).claims.tcb
  t.deepEqual(levels('Milan'), { boot_loader: 4, tee: 1, snp: 24, microcode: 217, value: '04010000000018d9' })
  t.deepEqual(levels('Turin'), { fmc: 1, boot_loader: 2, tee: 3, snp: 4, microcode: 71, value: '0102030400000047' })
})

test('Bergamo and Siena are of the Genoa line', (t) => {
  t.is(judge({ product: 'Genoa', report: { cpuid: [0x19, 0xa0, 2] } }).verdict, 'affirming')
  t.is(judge({ product: 'Genoa', vek: { productName: 'Siena-B0' } }).verdict, 'affirming')
})

test('a masked chip id is no fault: the key itself is the chip’s', (t) => {
  const verdict = judge({ report: { chipId: new Uint8Array(64) } })
  t.is(verdict.verdict, 'affirming')
  t.is(verdict.claims.chip_id, null)
})

test('platform bits that nobody knows yet are told, and no fault', (t) => {
  const verdict = judge({ report: { platformInfo: 0x67n } })
  t.is(verdict.verdict, 'affirming')
  t.is((verdict.claims.platform as Record<string, unknown>).unknown_bits, '0x40')
})

test('firmware that does not state its version is not held to be older than the policy demands', (t) => {
  const policy = 0x3_0001n
  t.is(judge({ report: { policy, current: [0, 0, 0], committed: [0, 0, 0] } }).verdict, 'affirming')
  t.is(judge({ report: { policy, current: [1, 0, 0], committed: [0, 0, 0] } }).verdict, 'contraindicated')
})

test('firmware newer than what is committed is no fault, as long as nothing more than that is reported', (t) => {
  t.is(
    judge({ report: { currentTcb: Uint8Array.of(4, 1, 0, 0, 0, 0, 25, 220), current: [41, 55, 1] } }).verdict,
    'affirming',
  )
  t.is(judge({ report: { launchTcb: Uint8Array.of(9, 9, 0, 0, 0, 0, 99, 255) } }).verdict, 'affirming')
})

test('without the certificate of its key a report is only warned of, and says what stayed unchecked', (t) => {
  const verdict = judge({ certificate: null })
  t.is(verdict.verdict, 'warning')
  t.deepEqual(codes(verdict), ['unchecked_chain'])
})

test('what is missing is named with the address at which AMD hands it out', (t) => {
  const remedy = (change: Case): string => judge(change).reasons[0]?.remedy ?? ''
  const chip = Buffer.from(CHIP).toString('hex')
  t.true(
    remedy({ certificate: null }).includes(
      `https://kdsintf.amd.com/vcek/v1/Milan/${chip}?blSPL=04&teeSPL=01&snpSPL=24&ucodeSPL=217 `,
    ),
  )
  t.true(
    remedy({ certificate: null, product: 'Turin' }).includes(
      'https://kdsintf.amd.com/vcek/v1/Turin/0102030405060708?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=71 ',
    ),
  )
  t.false(remedy({ certificate: null, vek: { kind: 'vlek' } }).includes('https:'))
  t.false(remedy({ certificate: null, report: { chipId: new Uint8Array(64) } }).includes('https:'))
  t.false(remedy({ certificate: null, report: { version: 2 } }).includes('https:'))
  t.true(remedy({ crls: [], product: 'Genoa' }).includes('https://kdsintf.amd.com/vcek/v1/Genoa/crl '))
  t.true(remedy({ crls: [], vek: { kind: 'vlek' } }).includes('https://kdsintf.amd.com/vlek/v1/Milan/crl '))
})

test('a root that nobody opted in to is not trusted, whatever it is called', (t) => {
  const { ark, ask } = authorities('Milan')
  t.deepEqual(codes(judge({ anchors: [] })), ['chain_untrusted'])
  const vek = vekCertificate({ kind: 'vcek', product: 'Milan', tcb: TCB, hwid: CHIP })
  t.deepEqual(codes(judge({ anchors: [], collateral: { certificates: [vek, ask, ark] } })), ['chain_untrusted'])
})

test('the revocation list decides between affirmed, unchecked and refused', (t) => {
  const revoked = (serial: number): ParsedCrl => rootCrl('Milan', { revoked: [{ serial: integer(serial) }] })
  const old = { thisUpdate: new Date('2023-01-01'), nextUpdate: new Date('2024-06-01') }
  const cases: readonly [verdict: EvidenceVerdict['verdict'], reasons: readonly string[], change: Case][] = [
    ['warning', ['unchecked_crl'], { crls: [] }],
    ['warning', ['unchecked_crl'], { crls: [rootCrl('Genoa')] }],
    ['warning', ['crl_expired'], { crls: [rootCrl('Milan', old)] }],
    ['warning', ['crl_not_yet_valid'], { crls: [rootCrl('Milan', { thisUpdate: new Date('2025-06-01') })] }],
    ['contraindicated', ['crl_invalid'], { crls: [forgedCrl('Milan')] }],
    ['affirming', [], { crls: [forgedCrl('Milan'), rootCrl('Milan')] }],
    ['contraindicated', ['certificate_revoked'], { crls: [revoked(SERIAL.ask)] }],
    ['contraindicated', ['certificate_revoked'], { crls: [rootCrl('Milan'), revoked(SERIAL.ask)] }],
    [
      'contraindicated',
      ['certificate_revoked'],
      { crls: [rootCrl('Milan', { ...old, revoked: [{ serial: integer(SERIAL.ask) }] })] },
    ],
    ['affirming', [], { crls: [revoked(SERIAL.asvk)] }],
    ['contraindicated', ['certificate_revoked'], { crls: [revoked(SERIAL.asvk)], vek: { kind: 'vlek' } }],
    ['contraindicated', ['certificate_revoked'], { crls: [revoked(77)], vek: { kind: 'vcek', serial: 77 } }],
  ]
  for (const [verdict, reasons, change] of cases) {
    const found = judge(change)
    t.is(found.verdict, verdict, codes(found).join())
    t.deepEqual(codes(found), reasons)
  }
})

const refusals: readonly [what: string, code: string, change: Case][] = [
  ['a certificate that is no longer valid', 'certificate_expired', { vek: { notAfter: new Date('2024-06-01') } }],
  ['a certificate that is not valid yet', 'certificate_not_yet_valid', { vek: { notBefore: new Date('2026-06-01') } }],
  ['the key of another chip', 'chip_mismatch', { vek: { hwid: new Uint8Array(64).fill(9) } }],
  [
    'a Turin chip id with something behind its eight bytes',
    'chip_mismatch',
    { product: 'Turin', report: { chipId: CHIP } },
  ],
  ['a key for another TCB', 'tcb_mismatch', { vek: { tcb: Uint8Array.of(4, 1, 0, 0, 0, 0, 24, 216) } }],
  ['a key for a TCB with a reserved level', 'tcb_mismatch', { vek: { tcb: Uint8Array.of(4, 1, 1, 0, 0, 0, 24, 217) } }],
  ['a key whose certificate names another product', 'product_mismatch', { vek: { productName: 'Genoa' } }],
  ['a processor that is not of the certificate’s product', 'product_mismatch', { report: { cpuid: [0x19, 0x11, 1] } }],
  ['a processor of no known product', 'product_mismatch', { report: { cpuid: [0x1a, 0x50, 0] } }],
  [
    'a certificate for a leased key where the report names the chip’s',
    'signing_key',
    { vek: { kind: 'vlek' }, report: { keyInfo: 0, chipId: CHIP } },
  ],
  ['a VCEK issued by the authority for VLEKs', 'chain_issuer', { vek: { by: 'asvk' } }],
  ['a VLEK issued by the authority for VCEKs', 'chain_issuer', { vek: { kind: 'vlek', by: 'ask' } }],
  ['a key certified by the root itself', 'chain_issuer', { vek: { by: 'ark' } }],
  ['a certificate that a stranger signed', 'chain_signature', { vek: { by: 'stranger' } }],
  ['a VCEK with a provider', 'vek_certificate', { vek: { cspId: 'cloud.example' } }],
  ['a VCEK without a chip', 'vek_certificate', { vek: { without: ['4'] } }],
  ['a VLEK with a chip', 'vek_certificate', { vek: { kind: 'vlek', hwid: CHIP } }],
  ['a VLEK without a provider', 'vek_certificate', { vek: { kind: 'vlek', without: ['5'] } }],
  ['a certificate of a later structure', 'vek_certificate', { vek: { structVersion: 2 } }],
  ['a certificate without its bootloader’s level', 'vek_certificate', { vek: { without: ['3.1'] } }],
  ['a certificate without its product', 'vek_certificate', { vek: { without: ['2'] } }],
  ['a certificate of an unknown product', 'vek_certificate', { vek: { productName: 'Venice' } }],
  [
    'a certificate with another extension of AMD’s',
    'vek_certificate',
    { vek: { extra: [{ oid: '1.3.6.1.4.1.3704.1.3.10', value: integer(1) }] } },
  ],
  [
    'a Milan key with a level that only Turin has',
    'vek_certificate',
    { vek: { extra: [{ oid: '1.3.6.1.4.1.3704.1.3.9', value: integer(0) }] } },
  ],
  [
    'a level of more than a byte',
    'vek_certificate',
    { vek: { without: ['3.1'], extra: [{ oid: '1.3.6.1.4.1.3704.1.3.1', value: integer(1, 0) }] } },
  ],
  [
    'an unknown critical extension',
    'chain_extension',
    { vek: { extra: [{ oid: '1.2.3.4', critical: true, value: integer(1) }] } },
  ],
  ['another key’s signature', 'signature_invalid', { report: { key: newVek().privateKey } }],
  ['another signature algorithm', 'signature_algorithm', { report: { algorithm: 2 } }],
  ['an unsigned report', 'unsigned', { report: { keyInfo: 7 << 2 } }],
  ['a kind of key that does not exist', 'signing_key', { report: { keyInfo: 3 << 2 } }],
  ['reserved bits of the key information', 'reserved_bits', { report: { keyInfo: 1 << 5 } }],
  ['a guest that may be debugged', 'debug', { report: { policy: 0xb0000n } }],
  ['a guest policy without the bit that is always one', 'reserved_bits', { report: { policy: 0x10000n } }],
  ['a reserved bit of the guest policy', 'reserved_bits', { report: { policy: 0x400_0000_0003_0000n } }],
  ['a policy bit that is newer than the report’s version', 'reserved_bits', { report: { policy: 0x203_0000n } }],
  ['a policy for newer firmware', 'policy_not_enforced', { report: { policy: 0x3ff00n } }],
  ['hyper-threading against the policy', 'policy_not_enforced', { report: { policy: 0x20000n } }],
  ['power measurement against the policy', 'policy_not_enforced', { report: { policy: 0x83_0000n } }],
  ['visible ciphertext against the policy', 'policy_not_enforced', { report: { policy: 0x103_0000n } }],
  ['a privilege level that does not exist', 'vmpl', { report: { vmpl: 4 } }],
  [
    'a committed TCB above the current one',
    'tcb_order',
    { report: { committedTcb: Uint8Array.of(5, 1, 0, 0, 0, 0, 24, 217) } },
  ],
  [
    'a reported TCB above the committed one',
    'tcb_order',
    { report: { committedTcb: Uint8Array.of(4, 1, 0, 0, 0, 0, 23, 217) } },
  ],
  ['committed firmware newer than the current one', 'tcb_order', { report: { committed: [0, 56, 1] } }],
  ['another nonce', 'nonce_mismatch', { nonce: Uint8Array.of(1, 2, 3) }],
]

for (const [what, code, change] of refusals) {
  test(`refused: ${what}`, (t) => {
    const verdict = judge(change)
    t.is(verdict.verdict, 'contraindicated')
    t.true(codes(verdict).includes(code), codes(verdict).join())
    t.true(verdict.reasons.every(({ message, remedy }) => message !== '' && remedy !== ''))
  })
}

const warnings: readonly [what: string, code: string, change: Case][] = [
  ['a guest that may be migrated', 'migratable', { report: { policy: 0x70000n } }],
  ['a report that the host asked for', 'host_requested', { report: { vmpl: 0xffff_ffff } }],
]

for (const [what, code, change] of warnings) {
  test(`warned of: ${what}`, (t) => {
    const verdict = judge(change)
    t.is(verdict.verdict, 'warning')
    t.deepEqual(codes(verdict), [code])
  })
}

test('privilege levels 0 to 3 are a matter of the policy', (t) => {
  for (const vmpl of [0, 1, 2, 3]) {
    const verdict = judge({ report: { vmpl } })
    t.is(verdict.verdict, 'affirming')
    t.is(verdict.claims.vmpl, vmpl)
  }
})

test('ranges that a version reserves must be zero, and only those', (t) => {
  const expected: Readonly<Record<number, readonly [free: readonly number[], reserved: readonly number[]]>> = {
    2: [[0x1d0], [0x4c, 0x18a, 0x18b, 0x19f, 0x1eb, 0x1ef, 0x1f8, 0x200, 0x29f]],
    3: [[0x18a], [0x4c, 0x18b, 0x19f, 0x1eb, 0x1ef, 0x1f8, 0x200, 0x29f]],
    4: [[0x18a], [0x4c, 0x18b, 0x19f, 0x1eb, 0x1ef, 0x1f8, 0x207, 0x29f]],
    5: [
      [0x18a, 0x1f8, 0x207],
      [0x4c, 0x18b, 0x19f, 0x1eb, 0x1ef, 0x208, 0x29f],
    ],
  }
  for (const [version, [free, reserved]] of Object.entries(expected)) {
    const found = (at: number): string[] =>
      codes(judge({ report: { version: Number(version), patch: [[at, 1]], chipId: new Uint8Array(64) } }))
    for (const at of reserved) t.deepEqual(found(at), ['reserved_bits'], `version ${version}, 0x${at.toString(16)}`)
    for (const at of free) t.false(found(at).includes('reserved_bits'), `version ${version}, 0x${at.toString(16)}`)
  }
})

test('a nonce is report data, padded on the right with zeros', (t) => {
  const reportData = new Uint8Array(64)
  reportData.set([1, 2, 3])
  t.is(judge({ report: { reportData }, nonce: Uint8Array.of(1, 2, 3) }).verdict, 'affirming')
  t.is(judge({ report: { reportData }, nonce: reportData }).verdict, 'affirming')
  t.is(judge({ report: { reportData }, nonce: Uint8Array.of(1, 2) }).verdict, 'contraindicated')
  t.is(judge({ report: { reportData }, nonce: Uint8Array.of(0, 1, 2, 3) }).verdict, 'contraindicated')
  t.throws(() => judge({ nonce: new Uint8Array(65) }), { code: 'ERR_NONCE' })
})

test('among the certificates of a fleet the one whose key signed is found', (t) => {
  const chain = authorities('Milan')
  const others = Array.from({ length: 20 }, (_, index) =>
    vekCertificate({
      kind: 'vcek',
      product: 'Milan',
      tcb: TCB,
      hwid: new Uint8Array(64).fill(index),
      key: newVek().publicKey,
    }),
  )
  const own = vekCertificate({ kind: 'vcek', product: 'Milan', tcb: TCB, hwid: CHIP })
  const certificates = [...others, own, chain.ask]
  t.is(judge({ collateral: { certificates } }).verdict, 'affirming')
  t.is(judge({ collateral: { certificates: [...others, chain.ask] } }).verdict, 'contraindicated')
})

test('of two certificates for the same key the one that is valid then decides', (t) => {
  const chain = authorities('Milan')
  const good = vekCertificate({ kind: 'vcek', product: 'Milan', tcb: TCB, hwid: CHIP })
  const old = vekCertificate({ kind: 'vcek', product: 'Milan', tcb: TCB, hwid: CHIP, notAfter: new Date('2024-06-01') })
  t.is(judge({ collateral: { certificates: [old, good, chain.ask] } }).verdict, 'affirming')
  t.deepEqual(codes(judge({ collateral: { certificates: [old, chain.ask] } })), ['certificate_expired'])
})

test('a Turin certificate may spell its chip id in 64 bytes, and have a reserved level of zero', (t) => {
  const level = (value: number): Case => ({
    product: 'Turin',
    vek: { hwid: TURIN_CHIP, extra: [{ oid: '1.3.6.1.4.1.3704.1.3.4', value: integer(value) }] },
  })
  t.is(judge(level(0)).verdict, 'affirming')
  t.deepEqual(codes(judge(level(1))), ['vek_certificate'])
})

test('what was verified before changes no verdict, and is forgotten when time or collateral changes', (t) => {
  const cache = new VekChainCache()
  const crls = [rootCrl('Milan', { nextUpdate: new Date('2025-02-01') })]
  const certificate = vekCertificate({ kind: 'vcek', product: 'Milan', tcb: TCB, hwid: CHIP })
  const change = { crls, certificate, cache }
  t.is(judge(change).verdict, 'affirming')
  t.is(judge({ ...change, report: { measurement: new Uint8Array(48) } }).verdict, 'affirming')
  t.deepEqual(codes(judge({ ...change, report: { key: newVek().privateKey } })), ['signature_invalid'])
  t.deepEqual(codes(judge({ ...change, at: new Date('2025-02-02') })), ['crl_expired'])
  t.deepEqual(codes(judge({ ...change, at: new Date('2031-01-01') })).toSorted(), [
    'certificate_expired',
    'crl_expired',
  ])
  t.deepEqual(codes(judge({ ...change, crls: [] })), ['unchecked_crl'])
  t.deepEqual(codes(judge({ ...change, anchors: [] })), ['chain_untrusted'])
  t.is(judge({ ...change, at: new Date('2025-02-01') }).verdict, 'affirming')
  t.is(judge(change).verdict, 'affirming')
})

test('the cache keeps no more chains than it was told to', (t) => {
  const cache = new VekChainCache(2)
  for (let serial = 0; serial < 5; serial++) {
    t.is(judge({ cache, vek: { serial: serial + 100 } }).verdict, 'affirming')
  }
  t.is(cache.size, 2)
})
