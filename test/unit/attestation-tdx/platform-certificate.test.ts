/** Certificates of platforms: where they are found, who issued them, and which do not count. */
import test from 'ava'
import { MalformedError } from '#protocol/errors'
import { certify, certifyPlatform, pemChain } from '../../fixtures/tdx/intel-pki.ts'
import { codes, collateralFiles, judge, pck, pem, pki, quote } from '../../fixtures/tdx/platform.ts'

test('a platform certificate that is not in the quote is found in the collateral by the signature it made', (t) => {
  const other = certifyPlatform({ issuer: pki.platformCa })
  const files = { 'certificates.pem': pem(other.der, pck.der, pki.platformCa.der) }
  for (const type of [1, 2, 3, 7]) {
    const evidence = quote({ certification: { type, data: new Uint8Array(404).fill(7) } })
    t.deepEqual(codes(judge({ evidence, collateral: collateralFiles({ files }) })), [])
    const unknown = judge({ evidence })
    t.is(unknown.verdict, 'warning')
    t.true(codes(unknown).includes('unchecked_chain'))
  }
  const leaf = quote({ certification: { type: 4, data: pemChain(pck) } })
  t.is(judge({ evidence: leaf, collateral: collateralFiles({ files }) }).verdict, 'affirming')
  t.deepEqual(codes(judge({ evidence: leaf })), ['unchecked_chain'])
})

test('a platform of the processor CA is judged by that CA’s list', (t) => {
  const own = certifyPlatform({ issuer: pki.processorCa })
  const certification = { type: 5, data: pemChain(own, pki.processorCa, pki.root) }
  const evidence = quote({ pckKey: own.key, certification })
  const verdict = judge({ evidence })
  t.is(verdict.verdict, 'affirming')
  t.is(verdict.claims.pck_ca_type, 'processor')
  const without = judge({ evidence, collateral: collateralFiles({ files: { 'processor.crl': undefined } }) })
  t.deepEqual(codes(without), ['unchecked_crl'])
})

test('a chain of another root is refused, and accepted once the policy names that root', (t) => {
  t.is(judge().verdict, 'affirming')
  const verdict = judge({ anchors: [] })
  t.is(verdict.verdict, 'contraindicated')
  t.true(codes(verdict).some((code) => code.startsWith('chain_')))
})

test('certificates that chain to the root and are not those of platforms sign no report of a quoting enclave', (t) => {
  const impostors = [pki.signer, certify({ name: 'Intel SGX PCK Certificate', issuer: pki.platformCa })]
  for (const impostor of impostors) {
    const certification = { type: 5, data: pemChain(impostor, pki.platformCa, pki.root) }
    const verdict = judge({ evidence: quote({ pckKey: impostor.key, certification }) })
    t.true(codes(verdict).includes('pck_certificate'))
    t.is(verdict.verdict, 'contraindicated')
  }
})

test('expired certificates of the chain are refused at the time that is asked for', (t) => {
  const validity = { notBefore: new Date('2025-01-01'), notAfter: new Date('2025-05-31') }
  const old = certifyPlatform({ issuer: pki.platformCa, validity })
  const certification = { type: 5, data: pemChain(old, pki.platformCa, pki.root) }
  const evidence = quote({ pckKey: old.key, certification })
  t.deepEqual(codes(judge({ evidence })), ['certificate_expired'])
  t.deepEqual(codes(judge({ evidence, at: new Date('2025-05-20T00:00:00Z') })), [])
})

test('a chain with something else than certificates between them is refused', (t) => {
  const data = new Uint8Array([...pemChain(pck, pki.platformCa, pki.root).slice(0, -1), 0x78])
  t.throws(() => judge({ evidence: quote({ certification: { type: 5, data } }) }), { code: 'ERR_QUOTE' })
  t.throws(() => judge({ evidence: quote({ certification: { type: 5, data: new Uint8Array() } }) }), {
    code: 'ERR_QUOTE',
  })
})

test('a chain of nothing but zeros and white space is refused at once, however long it is', (t) => {
  const data = new Uint8Array(100_000)
  data[data.length - 1] = 0x78
  const start = process.cpuUsage()
  for (const fill of [0, 0x0a, 0x2d]) {
    data.fill(fill, 0, -1)
    t.throws(() => judge({ evidence: quote({ certification: { type: 5, data } }) }), { instanceOf: MalformedError })
  }
  const { user } = process.cpuUsage(start)
  t.true(user < 2_000_000, `${user} µs`)
})
