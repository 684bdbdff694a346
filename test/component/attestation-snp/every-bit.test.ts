/** Each single bit of affirmed evidence, and of everything that it was affirmed with, matters. */
import { readFileSync } from 'node:fs'
import test from 'ava'
import { type Collateral, readCollateral } from '#attestation/evidence/collateral'
import { verdictOf } from '#attestation/evidence/verdict'
import { appraiseSnp } from '#attestation/snp/appraise'
import { parseSnpEvidence } from '#attestation/snp/parse/evidence'
import { VekChainCache } from '#attestation/snp/verify/vek-chain-cache'
import { parseCertificate } from '#attestation/x509/certificate'
import { parseCrl } from '#attestation/x509/crl'
import { CaissonError } from '#protocol/errors'

const read = (path: string): Uint8Array =>
  new Uint8Array(readFileSync(new URL(`../../vectors/snp/${path}`, import.meta.url)))
const REPORT = read('trustee/deps/verifier/test_data/snp/test-vlek-report.bin')
const COLLATERAL = readCollateral(
  ['trustee/deps/verifier/test_data/snp/test-vlek.der', 'openpcc/sev_certificates/test_amd_milan_crl.pem'].map(
    (name) => ({
      name,
      bytes: read(name),
    }),
  ),
)
const AT = new Date('2025-07-01')

function isAffirmed(report: Uint8Array, collateral: Collateral, cache?: VekChainCache): boolean {
  try {
    const context = { at: AT, nonce: undefined, collateral, anchors: [] }
    return verdictOf(appraiseSnp(parseSnpEvidence(report), context, cache)).verdict === 'affirming'
  } catch (error) {
    if (error instanceof CaissonError) return false
    throw error
  }
}

/** Positions of bits that can be changed without losing the verdict. */
function meaningless(good: Uint8Array, affirmed: (changed: Uint8Array) => boolean): string[] {
  const found: string[] = []
  for (let at = 0; at < good.length; at++) {
    for (let bit = 0; bit < 8; bit++) {
      if (affirmed(good.with(at, (good[at] ?? 0) ^ (1 << bit)))) found.push(`byte ${at}, bit ${bit}`)
    }
  }
  return found
}

function tolerated<Value>(read: () => Value): Value | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof CaissonError) return undefined
    throw error
  }
}

test('each bit of a report is signed, or must be zero', (t) => {
  const cache = new VekChainCache()
  t.true(isAffirmed(REPORT, COLLATERAL, cache))
  t.deepEqual(
    meaningless(REPORT, (changed) => isAffirmed(changed, COLLATERAL, cache)),
    [],
  )
})

test('each bit of the certificate of its key is signed', (t) => {
  const [vlek] = COLLATERAL.certificates
  const affirmed = (changed: Uint8Array): boolean => {
    const certificate = tolerated(() => parseCertificate(changed))
    return certificate !== undefined && isAffirmed(REPORT, { ...COLLATERAL, certificates: [certificate] })
  }
  t.true(affirmed(vlek?.der ?? new Uint8Array()))
  t.deepEqual(meaningless(vlek?.der ?? new Uint8Array(), affirmed), [])
})

test('each bit of the revocation list is signed', (t) => {
  const [crl] = COLLATERAL.crls
  const affirmed = (changed: Uint8Array): boolean => {
    const list = tolerated(() => parseCrl(changed))
    return list !== undefined && isAffirmed(REPORT, { ...COLLATERAL, crls: [list] })
  }
  t.true(affirmed(crl?.der ?? new Uint8Array()))
  t.deepEqual(meaningless(crl?.der ?? new Uint8Array(), affirmed), [])
})
