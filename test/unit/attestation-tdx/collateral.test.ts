/** Collateral that is missing, of other platforms, old, revoking or forged. */
import test from 'ava'
import { toHex } from '#protocol/encoding'
import { answer, qeIdentity, tcbInfo } from '../../fixtures/tdx/collateral-maker.ts'
import { certify, createIntelPki, revocationList } from '../../fixtures/tdx/intel-pki.ts'
import { codes, collateralFiles, judge, pck, pem, pki, quote } from '../../fixtures/tdx/platform.ts'
import { rawSignature } from '../../fixtures/tdx/quote-maker.ts'

for (const [name, file, code] of [
  ['TCB information', 'tcb-info.json', 'unchecked_tcb'],
  ['identity of the quoting enclave', 'qe-identity.json', 'unchecked_qe_identity'],
  ['list of the root', 'root.crl', 'unchecked_crl'],
  ['list of the platform CA', 'platform.crl', 'unchecked_crl'],
] as const) {
  test(`without the ${name} the verdict is a warning that says so`, (t) => {
    const verdict = judge({ collateral: collateralFiles({ files: { [file]: undefined } }) })
    t.is(verdict.verdict, 'warning')
    t.deepEqual([...new Set(codes(verdict))], [code])
  })
}

test('documents whose signer is not known are not believed, and say nothing about the platform', (t) => {
  const verdict = judge({ collateral: collateralFiles({ files: { 'signer.pem': undefined } }) })
  t.is(verdict.verdict, 'warning')
  t.deepEqual(codes(verdict), ['unchecked_tcb', 'unchecked_qe_identity'])
  t.is(verdict.claims.tcb_status, null)
})

test('without any collateral signatures and chain are checked all the same', (t) => {
  const verdict = judge({ collateral: [] })
  t.is(verdict.verdict, 'warning')
  t.deepEqual(new Set(codes(verdict)), new Set(['unchecked_crl', 'unchecked_tcb', 'unchecked_qe_identity']))
  const other = quote({ pckKey: certify({ name: 'other' }).key })
  t.is(judge({ evidence: other, collateral: [] }).verdict, 'contraindicated')
})

for (const [name, tcb] of [
  ['another FMSPC', { fmspc: '00906ED50000' }],
  ['another PCE', { pceId: '0001' }],
  ['SGX', { id: 'SGX' }],
] as const) {
  test(`TCB information for ${name} is refused`, (t) => {
    const verdict = judge({ collateral: collateralFiles({ tcb }) })
    t.deepEqual(codes(verdict), ['tcb_info_mismatch'])
    t.is(verdict.verdict, 'contraindicated')
  })
}

test('the identity of the SGX quoting enclave does not stand for that of TDX', (t) => {
  const verdict = judge({ collateral: collateralFiles({ identity: { id: 'QE' } }) })
  t.deepEqual(codes(verdict), ['qe_identity_mismatch'])
})

test('of several documents the one for this platform is taken, and of those the strictest', (t) => {
  const other = answer('tcbInfo', tcbInfo({ fmspc: '00906ED50000' }), pki.signer)
  const strict = { evaluationDataNumber: 18, levels: [{ status: 'OutOfDate' }] }
  const newer = answer('tcbInfo', tcbInfo(strict), pki.signer)
  t.is(judge({ collateral: collateralFiles({ files: { 'other.json': other } }) }).verdict, 'affirming')
  const verdict = judge({ collateral: collateralFiles({ files: { 'other.json': other, 'newer.json': newer } }) })
  t.is(verdict.claims.tcb_status, 'OutOfDate')
  t.is(verdict.claims.tcb_evaluation_data_number, 18)
})

test('collateral counts from its issue to its next update, both included', (t) => {
  const seconds = (date: string, by: number): Date => new Date(new Date(date).getTime() + 1000 * by)
  t.is(judge({ at: new Date('2025-05-15T00:00:00Z') }).verdict, 'affirming')
  t.is(judge({ at: new Date('2025-06-15T00:00:00Z') }).verdict, 'affirming')
  const early = judge({ at: seconds('2025-05-15T00:00:00Z', -1) })
  const late = judge({ at: seconds('2025-06-15T00:00:00Z', 1) })
  t.deepEqual(new Set(codes(early)), new Set(['collateral_not_yet_valid']))
  t.deepEqual(new Set(codes(late)), new Set(['collateral_expired']))
  t.is(early.verdict, 'contraindicated')
  t.is(late.verdict, 'contraindicated')
})

test('one old document among fresh ones is enough to be refused', (t) => {
  for (const request of [
    { tcb: { nextUpdate: '2025-05-31T23:59:59Z' } },
    { identity: { nextUpdate: '2025-05-31T23:59:59Z' } },
  ]) {
    const verdict = judge({ collateral: collateralFiles(request) })
    t.deepEqual(codes(verdict), ['collateral_expired'])
    t.is(verdict.verdict, 'contraindicated')
  }
})

test('revocation lists count for their time only', (t) => {
  const nextUpdate = new Date('2025-05-31T23:59:59Z')
  const thisUpdate = new Date('2025-06-01T00:00:01Z')
  const files = (name: string, dates: object): ReturnType<typeof collateralFiles> => {
    const issuer = name === 'root.crl' ? pki.root : pki.platformCa
    return collateralFiles({ files: { [name]: revocationList({ issuer, ...dates }) } })
  }
  for (const name of ['root.crl', 'platform.crl']) {
    t.true(codes(judge({ collateral: files(name, { nextUpdate }) })).every((code) => code === 'crl_expired'))
    t.is(judge({ collateral: files(name, { nextUpdate }) }).verdict, 'contraindicated')
    t.true(codes(judge({ collateral: files(name, { thisUpdate }) })).every((code) => code === 'crl_not_yet_valid'))
    t.is(judge({ collateral: files(name, { thisUpdate }) }).verdict, 'contraindicated')
  }
})

for (const [who, name, revoked] of [
  ['platform', 'platform.crl', [pck.serial]],
  ['platform CA', 'root.crl', [pki.platformCa.serial]],
  ['signer of the collateral', 'root.crl', [pki.signer.serial]],
  ['root itself', 'root.crl', [pki.root.serial]],
] as const) {
  test(`a revoked ${who} is refused`, (t) => {
    const issuer = name === 'root.crl' ? pki.root : pki.platformCa
    const collateral = collateralFiles({ files: { [name]: revocationList({ issuer, revoked: [1n, ...revoked] }) } })
    const verdict = judge({ collateral })
    t.true(codes(verdict).includes('certificate_revoked'))
    t.is(verdict.verdict, 'contraindicated')
  })
}

test('a list of the right name that somebody else signed does not say that nobody is revoked', (t) => {
  const impostor = { ...pki.platformCa, key: pck.key }
  const verdict = judge({
    collateral: collateralFiles({ files: { 'platform.crl': revocationList({ issuer: impostor }) } }),
  })
  t.deepEqual(codes(verdict), ['crl_invalid'])
  t.is(verdict.verdict, 'contraindicated')
})

test('a document with one character changed is refused', (t) => {
  const text = answer('tcbInfo', tcbInfo({ levels: [{ status: 'OutOfDate' }] }), pki.signer)
  for (const changed of [
    text.replace('OutOfDate', 'UpToDate'),
    text.replace('"TDX"', '"TDX" '),
    text.replace('000","tcbType', '000", "tcbType'),
  ]) {
    if (changed === text) continue
    const verdict = judge({ collateral: collateralFiles({ files: { 'tcb-info.json': changed } }) })
    t.true(codes(verdict).includes('collateral_signature'))
    t.is(verdict.verdict, 'contraindicated')
    t.is(verdict.claims.tcb_status, null)
  }
})

test('only the signer of collateral signs collateral: not a platform, not a CA, not a signer of another root', (t) => {
  const outsider = createIntelPki()
  for (const signer of [pck, pki.platformCa, pki.root, outsider.signer]) {
    const files = {
      'tcb-info.json': answer('tcbInfo', tcbInfo(), signer),
      'more.pem': pem(signer.der, outsider.root.der),
    }
    const verdict = judge({ collateral: collateralFiles({ files }) })
    t.is(verdict.verdict, 'contraindicated')
    t.is(verdict.claims.tcb_status, null)
  }
})

test('a signer without its root’s signature says nothing', (t) => {
  const forged = certify({ name: 'Intel SGX TCB Signing', issuer: { ...pki.root, key: pck.key } })
  const files = {
    'signer.pem': pem(forged.der),
    'tcb-info.json': answer('tcbInfo', tcbInfo(), forged),
    'qe-identity.json': answer('enclaveIdentity', qeIdentity(), forged),
  }
  const verdict = judge({ collateral: collateralFiles({ files }) })
  t.is(verdict.verdict, 'contraindicated')
  t.is(verdict.claims.tcb_status, null)
})

test('the collateral of dcap-qvl, and answers within objects, are the same collateral', (t) => {
  const tcb = JSON.stringify(tcbInfo())
  const identity = JSON.stringify(qeIdentity())
  const encode = (text: string): Uint8Array => new TextEncoder().encode(text)
  const chain = pem(pki.signer.der, pki.root.der)
  const whole = {
    pck_crl_issuer_chain: pem(pki.platformCa.der, pki.root.der),
    root_ca_crl: toHex(revocationList({ issuer: pki.root })),
    pck_crl: toHex(revocationList({ issuer: pki.platformCa })),
    tcb_info_issuer_chain: chain,
    tcb_info: tcb,
    tcb_info_signature: toHex(rawSignature(encode(tcb), pki.signer.key)),
    qe_identity_issuer_chain: chain,
    qe_identity: identity,
    qe_identity_signature: toHex(rawSignature(encode(identity), pki.signer.key)),
  }
  t.is(judge({ collateral: [{ name: 'collateral.json', bytes: encode(JSON.stringify(whole)) }] }).verdict, 'affirming')
  const answers = {
    ...whole,
    tcb_info: answer('tcbInfo', tcbInfo(), pki.signer),
    tcb_info_signature: undefined,
    qe_identity: answer('enclaveIdentity', qeIdentity(), pki.signer),
    qe_identity_signature: undefined,
  }
  t.is(judge({ collateral: [{ name: 'answers.json', bytes: encode(JSON.stringify(answers)) }] }).verdict, 'affirming')
  const headers = { 'TCB-Info-Issuer-Chain': encodeURIComponent(chain) }
  const text = `{"headers": ${JSON.stringify(headers)}, "body": ${answer('tcbInfo', tcbInfo(), pki.signer)}}`
  const files = { 'tcb-info.json': text, 'signer.pem': undefined }
  t.is(judge({ collateral: collateralFiles({ files }) }).verdict, 'affirming')
})
