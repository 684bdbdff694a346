/** Collateral of AMD and Intel, asked for by a running verifier at a server that behaves like theirs. */
import test, { type ExecutionContext } from 'ava'
import { decodeJwt } from 'jose'
import type { EvidenceSource } from '#attestation/client/evidence-source'
import { VerifierRefusal } from '#attestation/client/verifier-http'
import { certifyPlatform, revocationList } from '../../fixtures/tdx/intel-pki.ts'
import { attest, bare, POLICY, ROOTS, served } from './collateral-site.ts'
import {
  attesterOf,
  INITDATA,
  intel,
  platformKey,
  policyWith,
  snpReference,
  snpSource,
  tdxReference,
  tdxSource,
} from './hardware-guests.ts'
import { type Site, startSite } from './site.ts'
import { startVendors } from './vendor-server.ts'

const DAY_MS = 24 * 60 * 60 * 1000

async function refused(t: ExecutionContext, site: Site, source: EvidenceSource, code: string) {
  const error = await t.throwsAsync(attest(site, source), { instanceOf: VerifierRefusal })
  t.is(error?.refusal.code, code)
  const [record] = await site.admin.explain(error?.refusal.correlationId ?? '')
  return record
}

test.serial('a TD attests with what the verifier fetched from Intel’s service', async (t) => {
  const vendors = await startVendors(t)
  const site = await served(t, vendors)
  const { token } = await attest(site, tdxSource())
  t.like(decodeJwt(token), {
    'caisson.reference': 'td',
    submods: {
      cpu0: {
        'ear.status': 'affirming',
        'ear.trustworthiness-vector': { hardware: 2, executables: 3 },
        'ear.veraison.annotated-evidence': { tdx: { tcb_status: 'UpToDate', mrtd: '7d'.repeat(48) } },
      },
    },
  })
  t.is(vendors.asked.length, 4)
  await attest(site, tdxSource())
  t.is(vendors.asked.length, 4, 'everything is kept')
})

test.serial(
  'an SNP report without certificates attests with what the verifier fetched from AMD’s service',
  async (t) => {
    const vendors = await startVendors(t)
    const site = await served(t, vendors)
    await attest(site, bare())
    const asked = vendors.asked.map((path) => path.split('?')[0]?.replace(/[0-9a-f]{128}/, 'CHIP') ?? '')
    t.deepEqual(
      asked.toSorted((a, b) => a.localeCompare(b)),
      ['/vcek/v1/Milan/cert_chain', '/vcek/v1/Milan/CHIP', '/vcek/v1/Milan/crl'],
    )
    t.is((await site.admin.listCollateral()).length, 3)
  },
)

test.serial('certificates that come with a report are not asked for again, but the revocation list is', async (t) => {
  const vendors = await startVendors(t)
  await attest(await served(t, vendors), snpSource({ send: ['VCEK', 'ASK', 'ARK'] }))
  t.deepEqual(vendors.asked, ['/vcek/v1/Milan/crl'])
})

test.serial('many guests at once ask each question once', async (t) => {
  const vendors = await startVendors(t)
  vendors.mode = 'slow'
  const site = await served(t, vendors)
  await Promise.all(Array.from({ length: 8 }, () => attest(site, tdxSource())))
  t.is(vendors.asked.length, 4)
})

test.serial('addresses that evidence names are never asked', async (t) => {
  const vendors = await startVendors(t)
  const elsewhere = await startVendors(t)
  const site = await served(t, vendors)
  const { intelPcs: origin } = elsewhere.endpoints
  const pck = certifyPlatform({
    issuer: intel.platformCa,
    platformInstance: true,
    addresses: { list: `${origin}/list.crl`, issuer: `${origin}/issuer.cer` },
  })
  await t.notThrowsAsync(attest(site, tdxSource({ pck })))
  t.is(vendors.asked.length, 4)
  t.deepEqual(elsewhere.asked, [])
  t.false((await site.admin.listCollateral()).some(({ url }) => url.startsWith(origin)))
})

test.serial('evidence that is disproven makes the verifier ask nobody', async (t) => {
  const vendors = await startVendors(t)
  const site = await served(t, vendors)
  await refused(t, site, snpSource({ send: [], binding: () => new Uint8Array(48) }), 'ERR_NONCE_MISMATCH')
  t.deepEqual(vendors.asked, [])
})

test.serial('a service that asks for patience is asked again when it said, and not before', async (t) => {
  const vendors = await startVendors(t)
  const site = await served(t, vendors)
  vendors.mode = 'busy'
  vendors.retryAfter = '600'
  await refused(t, site, tdxSource(), 'ERR_EVIDENCE_UNCHECKED')
  const asked = vendors.asked.length
  t.true(asked >= 1 && asked <= 4, 'each question once at most')
  vendors.mode = undefined
  await refused(t, site, bare(), 'ERR_EVIDENCE_UNCHECKED')
  t.is(vendors.asked.length, asked, 'nor is anything else asked there')

  const patient = await startVendors(t)
  const other = await served(t, patient)
  patient.mode = 'busy at first'
  patient.retryAfter = '1'
  await t.notThrowsAsync(attest(other, tdxSource()))
  t.deepEqual(
    Object.values(Object.groupBy(patient.asked, (path) => path)).map((each) => each?.length),
    [2, 2, 2, 2],
  )
})

for (const mode of ['broken', 'down', 'redirect'] as const) {
  test.serial(`a service that is ${mode} leaves evidence unchecked, and what is known goes on counting`, async (t) => {
    const vendors = await startVendors(t)
    const site = await served(t, vendors)
    await attest(site, tdxSource())
    vendors.mode = mode
    await t.notThrowsAsync(attest(site, tdxSource()))
    const record = await refused(t, site, bare(), 'ERR_EVIDENCE_UNCHECKED')
    t.true(record?.checks.some(({ claim }) => claim.startsWith('unchecked_chain')))
    t.false(vendors.asked.includes('/elsewhere'))
  })
}

test.serial(
  'answers that nobody trusted signed, of other platforms, or that go back in time are not kept',
  async (t) => {
    const vendors = await startVendors(t)
    const problems: string[] = []
    const site = await served(t, vendors, { onCollateralProblem: (_url, error) => problems.push(String(error)) })
    const stranger = (await import('../../fixtures/tdx/intel-pki.ts')).createIntelPki()
    vendors.bodies.set('/IntelSGXRootCA.der', revocationList({ issuer: stranger.root }))
    vendors.tcb = { fmspc: '00'.repeat(6) }
    await refused(t, site, tdxSource(), 'ERR_EVIDENCE_UNCHECKED')
    t.true(problems.some((problem) => problem.includes('nobody trusted')))
    const kept = (await site.admin.listCollateral()).map(({ url }) => url)
    t.false(kept.some((url) => /IntelSGXRootCA|tcb\?/.test(url)))
  },
)

test.serial('a service that goes back in time brings nothing back: what is older than known is refused', async (t) => {
  const vendors = await startVendors(t)
  const problems: string[] = []
  let aheadMs = 0
  const site = await served(t, vendors, {
    now: () => new Date(Date.now() + aheadMs),
    onCollateralProblem: (url, error) => problems.push(`${new URL(url).pathname} ${String(error)}`),
  })
  const outcome = () =>
    attest(site, tdxSource()).then(
      () => 'accepted',
      (error: unknown) => (error instanceof VerifierRefusal ? error.refusal.code : String(error)),
    )
  const day = (days: number): Date => new Date(Math.floor((Date.now() + days * DAY_MS) / 1000) * 1000)
  const text = (date: Date): string => date.toISOString().replace('.000', '')
  const list = '/sgx/certification/v4/pckcrl?ca=platform&encoding=der'
  const crl = (issued: number, revoked: readonly bigint[]): Uint8Array =>
    revocationList({ issuer: intel.platformCa, thisUpdate: day(issued), nextUpdate: day(20), revoked })

  vendors.tcb = { issueDate: text(day(-1)), levels: [{ status: 'OutOfDate' }] }
  t.is(await outcome(), 'ERR_EVIDENCE_REFUSED')
  aheadMs = 1.5 * DAY_MS // time to ask again
  vendors.tcb = { issueDate: text(day(-9)), levels: [{ status: 'UpToDate' }] }
  const asked = vendors.asked.length
  t.is(await outcome(), 'ERR_EVIDENCE_REFUSED')
  t.true(vendors.asked.length > asked, 'Intel was asked')
  t.true(problems.some((problem) => /\/tcb .*older than what is known/.test(problem)))
  const again = vendors.asked.length
  t.is(await outcome(), 'ERR_EVIDENCE_REFUSED')
  t.is(vendors.asked.length, again, 'and is not asked again by every guest')

  aheadMs = 3 * DAY_MS
  vendors.tcb = { issueDate: text(day(0)), levels: [{ status: 'UpToDate' }] }
  t.is(await outcome(), 'accepted')

  aheadMs = 4.5 * DAY_MS
  vendors.bodies.set(list, crl(0, [platformKey.serial]))
  t.is(await outcome(), 'ERR_EVIDENCE_UNVERIFIED')
  aheadMs = 6 * DAY_MS
  vendors.bodies.set(list, crl(-5, []))
  t.is(await outcome(), 'ERR_EVIDENCE_UNVERIFIED')
  t.true(problems.some((problem) => /pckcrl .*older than what is known/.test(problem)))
})

test.serial(
  'a platform that Intel calls out of date is refused by default, and accepted where the policy says so',
  async (t) => {
    const vendors = await startVendors(t)
    vendors.tcb = { levels: [{ status: 'OutOfDate', advisories: ['INTEL-SA-00999'] }] }
    const site = await served(t, vendors)
    const record = await refused(t, site, tdxSource(), 'ERR_EVIDENCE_REFUSED')
    t.regex(record?.reason ?? '', /^TCB: .*OutOfDate \(INTEL-SA-00999\)/)
    await site.admin.putPolicy('ours', policyWith([intel.root.der], 'minimum: { tdx: { tcb_status: [OutOfDate] } }\n'))
    await t.notThrowsAsync(attest(site, tdxSource()))
  },
)

test.serial('another kernel, command line or firmware of a TD is refused, and named', async (t) => {
  const site = await served(t, await startVendors(t))
  const fill = (byte: number): Uint8Array => new Uint8Array(48).fill(byte)
  const firmware = await refused(t, site, tdxSource({ td: { mrTd: fill(9) } }), 'ERR_MEASUREMENT_MISMATCH')
  t.is(firmware?.reason, 'compared with td: the firmware differs (MRTD)')
  const td = { rtmrs: [fill(1), fill(2), fill(9), fill(0)] }
  const line = await refused(t, site, tdxSource({ td }), 'ERR_MEASUREMENT_MISMATCH')
  t.is(line?.reason, 'compared with td: command line or initrd differs (RTMR2)')
  t.like(
    line?.checks.find(({ ok }) => !ok),
    { claim: 'rtmr2 (td)', expected: '03'.repeat(48), found: '09'.repeat(48) },
  )
})

test.serial('a verifier that reaches nobody attests with collateral that was exported elsewhere', async (t) => {
  const vendors = await startVendors(t)
  const online = await served(t, vendors)
  await attest(online, tdxSource())
  await attest(online, bare())
  const [bundle = Buffer.of(), ...more] = await Array.fromAsync(online.admin.exportCollateral())
  t.is(more.length, 0)

  const offline = await served(t, undefined)
  await refused(t, offline, tdxSource(), 'ERR_EVIDENCE_UNCHECKED')
  const error = await t.throwsAsync(offline.admin.importCollateral(bundle), { instanceOf: VerifierRefusal })
  t.is(error?.refusal.code, 'ERR_COLLATERAL_ANSWER', 'its operator does not trust these makers')

  const trusting = await startSite(t, { trustedCollateralRoots: ROOTS })
  await trusting.admin.putPolicy('ours', POLICY)
  await trusting.admin.putReference(snpReference('web', [{ vcpus: 1, measurement: 'ab'.repeat(48) }]))
  await trusting.admin.putReference(tdxReference('td', {}))
  t.is(await trusting.admin.importCollateral(bundle), 7)
  await t.notThrowsAsync(attest(trusting, tdxSource()))
  await t.notThrowsAsync(attest(trusting, bare()))
  const damaged = Buffer.from(
    Buffer.from(bundle).toString().replace('https://kdsintf.amd.com', 'https://kds.example.org'),
  )
  await t.throwsAsync(trusting.admin.importCollateral(damaged), { instanceOf: VerifierRefusal })
})

test.serial('collateral outlives the verifier’s process', async (t) => {
  const vendors = await startVendors(t)
  const site = await served(t, vendors)
  await attest(site, tdxSource())
  vendors.mode = 'down'
  const { startVerifier } = await import('#attestation/verifier/verifier')
  const { STORE_KEY } = await import('./site.ts')
  const again = await startVerifier({
    storePath: site.storePath,
    storeKey: STORE_KEY,
    adminKeys: [],
    collateralEndpoints: vendors.endpoints,
    trustedCollateralRoots: ROOTS,
  })
  t.teardown(() => again.close())
  await t.notThrowsAsync(attesterOf(site, tdxSource(), again.url).attest({ initdataToml: INITDATA }))
  t.is(vendors.asked.length, 4)
})
