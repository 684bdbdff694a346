/** What was verified before is used again only where a fresh verification would say the same. */
import test from 'ava'
import { EndorsementCache } from '#attestation/tdx/verify/endorsement-cache'
import { revocationList } from '../../fixtures/tdx/intel-pki.ts'
import { AT, codes, collateralFiles, judge, pck, pki, quote } from '../../fixtures/tdx/platform.ts'

test('what was verified before is used for the same bytes and the same time only, and judges the same', (t) => {
  const cache = new EndorsementCache(3)
  const evidence = quote()
  const collateral = collateralFiles()
  const first = judge({ evidence, collateral, cache })
  t.deepEqual(judge({ evidence, collateral, cache }), first)
  t.is(cache.size, 1)
  t.deepEqual(
    codes(judge({ evidence, collateral, cache, at: new Date('2025-06-15T00:00:01Z') })),
    codes(judge({ evidence, collateral, at: new Date('2025-06-15T00:00:01Z') })),
  )
  t.true(codes(judge({ evidence, collateral, cache, anchors: [] })).some((code) => code.startsWith('chain_')))
  const revoked = collateralFiles({
    files: { 'platform.crl': revocationList({ issuer: pki.platformCa, revoked: [pck.serial] }) },
  })
  t.true(codes(judge({ evidence, collateral: revoked, cache })).includes('certificate_revoked'))
  t.is(judge({ evidence, collateral, cache, at: AT }).verdict, 'affirming')
  t.is(cache.size, 3)
})

test('quotes that were tampered with are refused from what is kept as they are afresh', (t) => {
  const cache = new EndorsementCache()
  const evidence = quote()
  const collateral = collateralFiles()
  t.is(judge({ evidence, collateral, cache }).verdict, 'affirming')
  for (let at = 0; at < 1260; at += 7) {
    const changed = evidence.slice()
    changed[at] = (changed[at] ?? 0) ^ 0x40
    const outcome = (kept: EndorsementCache | undefined): unknown => {
      try {
        const occasion = { evidence: changed, collateral }
        return judge(kept === undefined ? occasion : { ...occasion, cache: kept })
      } catch (error) {
        return String(error)
      }
    }
    t.deepEqual(outcome(cache), outcome(undefined))
  }
})
