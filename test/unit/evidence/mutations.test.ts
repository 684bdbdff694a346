/**
 * Good evidence of each TEE with something changed, judged as a whole: nothing that is changed is affirmed, unless it means
 * the same to every reader (white space of PEM and JSON, case of hexadecimal).
 */
import { readFileSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { STRICT_POLICY } from '#attestation/appraisal/policy'
import { type CollateralFile, readCollateral } from '#attestation/evidence/collateral'
import type { Tee } from '#attestation/evidence/verdict'
import { verifyEvidence } from '#attestation/evidence/verify-evidence'
import { CaissonError } from '#protocol/errors'

const read = (path: string): Uint8Array => new Uint8Array(readFileSync(`test/vectors/${path}`))
const file = (name: string): CollateralFile => ({ name, bytes: read(name) })

interface Good {
  readonly tee: Tee
  readonly evidence: Uint8Array
  readonly collateral: readonly CollateralFile[]
  readonly at: string
  readonly nonce?: Uint8Array
}

const SNP: Good = {
  tee: 'snp',
  evidence: read('snp/trustee/deps/verifier/test_data/snp/test-vlek-report.bin'),
  collateral: [
    file('snp/trustee/deps/verifier/test_data/snp/test-vlek.der'),
    file('snp/openpcc/sev_certificates/test_amd_milan_crl.pem'),
  ],
  at: '2025-08-01',
}
const TDX: Good = {
  tee: 'tdx',
  evidence: read('tdx/dcap-qvl/sample/tdx_quote'),
  collateral: [file('tdx/dcap-qvl/sample/tdx_quote_collateral.json')],
  at: '2025-07-01',
}
const AZURE: Good = {
  tee: 'tpm',
  evidence: read('tpm/trustee/az-snp-vtpm/evidence-v1.json'),
  collateral: [file('snp/openpcc/sev_certificates/test_amd_milan_crl.pem')],
  at: '2025-08-01',
  nonce: new Uint8Array(Buffer.from('challenge')),
}
const ALL: Readonly<Record<string, Good>> = { 'SNP report': SNP, 'TDX quote': TDX, 'Azure evidence': AZURE }

async function verdict({ tee, evidence, collateral, at, nonce }: Good): Promise<string> {
  try {
    const request = {
      tee,
      evidence,
      nonce,
      policy: STRICT_POLICY,
      at: new Date(at),
      collateral: readCollateral(collateral),
    }
    return (await verifyEvidence(request)).verdict
  } catch (error) {
    if (error instanceof CaissonError) return error.code
    throw error
  }
}

for (const [name, good] of Object.entries(ALL)) {
  test(`${name}: unchanged, it is affirmed; empty, doubled or cut, it is not`, async (t) => {
    t.is(await verdict(good), 'affirming')
    const { evidence } = good
    const half = evidence.subarray(0, evidence.length >> 1)
    for (const other of [new Uint8Array(), half, evidence.subarray(5), new Uint8Array([...evidence, ...evidence])]) {
      t.not(await verdict({ ...good, evidence: other }), 'affirming')
    }
  })
}

/** Does the change leave the meaning? Azure's JSON has hexadecimal of either case, PEM and JSON have white space. */
function sameMeaning(before: number, after: number): boolean {
  const [a, b] = [String.fromCharCode(before), String.fromCharCode(after)]
  return (/\s/.test(a) && /\s/.test(b)) || (/[a-f]/i.test(a) && a.toLowerCase() === b.toLowerCase())
}

async function flipsAreNoticed(t: ExecutionContext, good: Good, range: readonly [number, number]): Promise<void> {
  const change = fc.tuple(fc.integer({ min: range[0], max: range[1] - 1 }), fc.integer({ min: 1, max: 255 }))
  await fc.assert(
    fc.asyncProperty(change, async ([at, flip]) => {
      const before = good.evidence[at] ?? 0
      const after = before ^ flip
      if (good.tee !== 'snp' && sameMeaning(before, after)) return true
      return (await verdict({ ...good, evidence: good.evidence.with(at, after) })) !== 'affirming'
    }),
    { numRuns: 40 },
  )
  t.pass()
}

test('SNP report: no changed byte is affirmed', (t) => flipsAreNoticed(t, SNP, [0, SNP.evidence.length]))

/** Places from Intel's description of quotes: header, body, signature, attestation key, quoting enclave, certificates. */
const REGIONS: Readonly<Record<string, readonly [number, number]>> = {
  header: [0, 48],
  body: [48, 632],
  'length of the signature': [632, 636],
  signature: [636, 700],
  'attestation key': [700, 764],
  'report of the quoting enclave': [770, 1154],
  'signature of that report': [1154, 1218],
  certificates: [1256, 4936],
  padding: [4936, 5006],
}
for (const [region, range] of Object.entries(REGIONS)) {
  test(`TDX quote: no changed byte of its ${region} is affirmed`, (t) => flipsAreNoticed(t, TDX, range))
}

/** Azure's evidence is text: what is decoded is changed, member by member. */
type Members = { vcek: string; hcl_report: string; tpm_quote: { message: string; signature: string; pcrs: string[] } }
const azure = JSON.parse(Buffer.from(AZURE.evidence).toString('utf8')) as Members
/** Header and lengths of the paravisor's report that nothing signs: readers need some of them, and others nobody reads. */
const UNSIGNED: readonly (readonly [number, number])[] = [
  [0, 32],
  [1216, 1236],
]

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes)
  copy.writeUInt8((copy[at] ?? 0) ^ 0x11, at)
  return copy
}

const changes: Readonly<Record<string, (at: number) => object | undefined>> = {
  'hardware report and runtime claims': (at) => {
    const bytes = Buffer.from(azure.hcl_report, 'base64url')
    const place = at % bytes.length
    if (UNSIGNED.some(([from, to]) => place >= from && place < to)) return undefined
    return { ...azure, hcl_report: flipped(bytes, place).toString('base64url') }
  },
  'TPM quote': (at) => {
    const message = Buffer.from(azure.tpm_quote.message, 'hex')
    return {
      ...azure,
      tpm_quote: { ...azure.tpm_quote, message: flipped(message, at % message.length).toString('hex') },
    }
  },
  'signature of the quote': (at) => {
    const signature = Buffer.from(azure.tpm_quote.signature, 'hex')
    return {
      ...azure,
      tpm_quote: { ...azure.tpm_quote, signature: flipped(signature, at % signature.length).toString('hex') },
    }
  },
  'PCR values': (at) => {
    const pcrs = azure.tpm_quote.pcrs.map((pcr, index) =>
      index === at % 24 ? flipped(Buffer.from(pcr, 'hex'), at % 32).toString('hex') : pcr,
    )
    return { ...azure, tpm_quote: { ...azure.tpm_quote, pcrs } }
  },
  certificate: (at) => {
    const bytes = Buffer.from(azure.vcek, 'base64url')
    return { ...azure, vcek: flipped(bytes, at % bytes.length).toString('base64url') }
  },
}
for (const [part, change] of Object.entries(changes)) {
  test(`Azure evidence: no changed byte of its ${part} is affirmed`, async (t) => {
    await fc.assert(
      fc.asyncProperty(fc.nat(1 << 20), async (at) => {
        const document = change(at)
        if (document === undefined) return true
        return (await verdict({ ...AZURE, evidence: Buffer.from(JSON.stringify(document)) })) !== 'affirming'
      }),
      { numRuns: 20 },
    )
    t.pass()
  })
}

test('Azure evidence: halves of two machines do not make one', async (t) => {
  const other = JSON.parse(readFileSync('test/vectors/tpm/trustee/az-snp-vtpm/tpm-quote-v1.json', 'utf8'))
  t.not(await verdict({ ...AZURE, evidence: Buffer.from(JSON.stringify({ ...azure, tpm_quote: other })) }), 'affirming')
})

/** Certificates, revocation lists, TCB information and identities: each matters, so no change of one is affirmed. */
for (const [name, good] of Object.entries({ 'SNP report': SNP, 'TDX quote': TDX })) {
  test(`${name}: without one piece of its collateral it is not affirmed`, async (t) => {
    for (const missing of good.collateral) {
      const collateral = good.collateral.filter((piece) => piece !== missing)
      t.not(await verdict({ ...good, collateral }), 'affirming', missing.name)
    }
  })
}

const intel = JSON.parse(Buffer.from(TDX.collateral[0]?.bytes ?? new Uint8Array()).toString('utf8')) as Record<
  string,
  string
>
for (const member of [
  'tcb_info',
  'qe_identity',
  'root_ca_crl',
  'pck_crl',
  'tcb_info_signature',
  'qe_identity_signature',
]) {
  test(`TDX quote: no changed character of ${member} is affirmed`, async (t) => {
    const text = intel[member] ?? ''
    const change = fc.tuple(fc.nat(text.length - 1), fc.constantFrom(...Array.from('0123456789abcdefghxyzABC')))
    await fc.assert(
      fc.asyncProperty(change, async ([at, letter]) => {
        const hex = !member.endsWith('info') && !member.endsWith('identity')
        if (text[at] === letter || (hex && text[at] === letter.toLowerCase())) return true
        const changed = JSON.stringify({ ...intel, [member]: text.slice(0, at) + letter + text.slice(at + 1) })
        const collateral = [{ name: 'changed', bytes: new Uint8Array(Buffer.from(changed)) }]
        return (await verdict({ ...TDX, collateral })) !== 'affirming'
      }),
      { numRuns: 20 },
    )
    t.pass()
  })
}

test('SNP report: no changed byte of its key’s certificate or of the revocation list is affirmed', async (t) => {
  const [vek, crl] = SNP.collateral
  if (vek === undefined || crl === undefined) return t.fail()
  const which = fc.constantFrom(vek, crl)
  await fc.assert(
    fc.asyncProperty(which, fc.nat(1 << 20), fc.integer({ min: 1, max: 255 }), async (piece, at, flip) => {
      const place = at % piece.bytes.length
      const before = piece.bytes[place] ?? 0
      const text = piece === crl
      if (text && sameMeaning(before, before ^ flip) && /\s/.test(String.fromCharCode(before))) return true
      const changed = { ...piece, bytes: piece.bytes.with(place, before ^ flip) }
      // Text before and behind a PEM block is no part of it; a letter that is not base64 makes it no block.
      return (
        (await verdict({ ...SNP, collateral: [piece === vek ? changed : vek, piece === crl ? changed : crl] })) !==
        'affirming'
      )
    }),
    { numRuns: 80 },
  )
  t.pass()
})

test('evidence of one kind is not affirmed as another', async (t) => {
  for (const good of Object.values(ALL)) {
    for (const tee of ['snp', 'tdx', 'tpm'] as const) {
      if (tee === good.tee || (good === AZURE && tee === 'snp')) continue
      t.not(await verdict({ ...good, tee }), 'affirming')
    }
  }
})
