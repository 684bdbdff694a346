/** Verdicts beside those of an independent implementation, npm @phala/dcap-qvl, on platforms of a test authority. */
import { createRequire } from 'node:module'
import test from 'ava'
import fc from 'fast-check'
import { toHex } from '#protocol/encoding'
import { type LevelRequest, qeIdentity, TDX_COMPONENTS, tcbInfo } from '../../fixtures/tdx/collateral-maker.ts'
import { COMPONENTS, PCE_SVN, revocationList } from '../../fixtures/tdx/intel-pki.ts'
import { AT, judge, pem, pki, quote } from '../../fixtures/tdx/platform.ts'
import { rawSignature } from '../../fixtures/tdx/quote-maker.ts'

interface Peer {
  readonly QuoteVerifier: {
    newWithRootCa(der: Uint8Array): {
      verify(quote: Uint8Array, collateral: unknown, seconds: number): { status: string; advisory_ids: string[] }
    }
  }
}
const { QuoteVerifier } = createRequire(import.meta.url)('@phala/dcap-qvl') as Peer
const peer = QuoteVerifier.newWithRootCa(Buffer.from(pki.root.der))

const STATUSES = [
  'UpToDate',
  'SWHardeningNeeded',
  'ConfigurationNeeded',
  'ConfigurationAndSWHardeningNeeded',
  'OutOfDate',
  'OutOfDateConfigurationNeeded',
  'Revoked',
]
const good = quote()
const lists = {
  root_ca_crl: toHex(revocationList({ issuer: pki.root })),
  pck_crl: toHex(revocationList({ issuer: pki.platformCa })),
}

/** One object with all collateral, as both read it. */
function collateralOf(levels: readonly LevelRequest[]): Record<string, string> {
  const tcb = JSON.stringify(tcbInfo({ levels }))
  const identity = JSON.stringify(qeIdentity())
  const sign = (text: string): string => toHex(rawSignature(new TextEncoder().encode(text), pki.signer.key))
  const chain = pem(pki.signer.der, pki.root.der)
  return {
    ...lists,
    pck_crl_issuer_chain: pem(pki.platformCa.der, pki.root.der),
    tcb_info_issuer_chain: chain,
    tcb_info: tcb,
    tcb_info_signature: sign(tcb),
    qe_identity_issuer_chain: chain,
    qe_identity: identity,
    qe_identity_signature: sign(identity),
  }
}

function ours(evidence: Uint8Array, collateral: unknown): string {
  const bytes = new TextEncoder().encode(JSON.stringify(collateral))
  const { claims, verdict } = judge({ evidence, collateral: [{ name: 'collateral.json', bytes }] })
  const refused = claims.tcb_status === null || claims.tcb_status === 'Revoked'
  if (refused !== (verdict === 'contraindicated')) return `${verdict} at ${JSON.stringify(claims.tcb_status)}`
  return refused ? 'refused' : JSON.stringify([claims.tcb_status, claims.advisory_ids])
}

function theirs(evidence: Uint8Array, collateral: unknown): string {
  try {
    const { status, advisory_ids } = peer.verify(evidence, collateral, AT.getTime() / 1000)
    return JSON.stringify([status, advisory_ids])
  } catch {
    return 'refused'
  }
}

test('both give the same status and advisories for any TCB levels, highest first', (t) => {
  const near = (svns: readonly number[]): fc.Arbitrary<number[]> =>
    fc
      .array(fc.tuple(fc.nat(15), fc.integer({ min: -1, max: 1 })), { maxLength: 2 })
      .map((changes) => svns.map((svn, at) => Math.max(0, svn + (changes.find(([place]) => place === at)?.[1] ?? 0))))
  const level: fc.Arbitrary<LevelRequest> = fc.record({
    status: fc.constantFrom(...STATUSES),
    sgx: near(COMPONENTS),
    tdx: near(TDX_COMPONENTS),
    pceSvn: fc.integer({ min: PCE_SVN - 1, max: PCE_SVN + 1 }),
    advisories: fc.uniqueArray(fc.constantFrom('INTEL-SA-1', 'INTEL-SA-2', 'INTEL-SA-3'), { maxLength: 2 }),
  })
  const rank = ({ sgx = [], pceSvn = 0, tdx = [] }: LevelRequest): string =>
    [...sgx, pceSvn, ...tdx].map((svn) => String(svn).padStart(5, '0')).join()
  // The peer takes levels in their order, so they are written as Intel does.
  const levels = fc
    .uniqueArray(level, { minLength: 1, maxLength: 5, selector: rank })
    .map((list) => list.toSorted((a, b) => (rank(a) < rank(b) ? 1 : -1)))
  fc.assert(
    fc.property(levels, (list) => {
      const collateral = collateralOf(list)
      return ours(good, collateral) === theirs(good, collateral)
    }),
    { numRuns: 40 },
  )
  t.not(theirs(good, collateralOf([{ status: 'UpToDate' }])), 'refused')
})

test('whatever the peer refuses of a quote that was changed is not affirmed here', (t) => {
  const collateral = collateralOf([{ status: 'UpToDate' }])
  t.is(ours(good, collateral), theirs(good, collateral))
  for (let at = 0; at < good.length; at += 101) {
    const changed = good.with(at, (good[at] ?? 0) ^ 0x10)
    if (theirs(changed, collateral) !== 'refused') continue
    let verdict: string
    try {
      const bytes = new TextEncoder().encode(JSON.stringify(collateral))
      verdict = judge({ evidence: changed, collateral: [{ name: 'c', bytes }] }).verdict
    } catch {
      verdict = 'refused'
    }
    t.not(verdict, 'affirming', String(at))
  }
})
