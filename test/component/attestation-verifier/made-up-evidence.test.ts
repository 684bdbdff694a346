/** Evidence that nobody's hardware made, from strangers of one tenant, and what it costs the makers and other tenants. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import test, { type ExecutionContext } from 'ava'
import type { EvidenceSource } from '#attestation/client/evidence-source'
import { createAdminKey } from '#attestation/verifier/admin/authenticator'
import { VerifierAdminClient } from '#attestation/verifier/admin/client'
import { certifyPlatform, createIntelPki } from '../../fixtures/tdx/intel-pki.ts'
import { attest, bare, served, trustMakers } from './collateral-site.ts'
import { snpSource, tdxSource } from './hardware-guests.ts'
import type { Site } from './site.ts'
import { startVendors, type VendorServer } from './vendor-server.ts'

const STRANGERS = 60
/** Questions about unproven evidence that a tenant may have asked at once, and after how long there is one more. */
const AT_HAND = 32
const ONE_MORE_MS = 10_000

const stranger = generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey
const strangers = createIntelPki()

/** A report that its sender signed, of a chip that nobody made. */
const madeUpReport = (): EvidenceSource =>
  snpSource({ send: [], key: stranger, chipId: new Uint8Array(randomBytes(64)) })

/** A quote of a kind of platform that nobody made, under a certificate whose issuer it leaves out. */
const madeUpQuote = (): EvidenceSource =>
  tdxSource({
    pck: certifyPlatform({ issuer: strangers.platformCa, fmspc: randomBytes(6).toString('hex') }),
    issuers: [],
  })

/** URL of another tenant that trusts the same makers. */
async function shopOf(site: Site): Promise<string> {
  const owner = createAdminKey()
  await site.admin.putTenant('shop', { admins: [{ key: owner.publicJwk, role: 'owner' }] })
  const url = `${site.verifier.url}/t/shop`
  await trustMakers({ admin: new VerifierAdminClient({ http: site.http, url, adminKey: owner.privateJwk }) })
  return url
}

async function refuseAll(t: ExecutionContext, attempts: readonly Promise<unknown>[]): Promise<void> {
  for (const result of await Promise.allSettled(attempts)) {
    t.regex(String(result.status === 'rejected' ? result.reason : 'accepted'), /ERR_EVIDENCE_UN(?:CHECKED|VERIFIED)/)
  }
}

const asked = ({ asked }: VendorServer, form: RegExp): number => asked.filter((path) => form.test(path)).length

for (const { name, make, chosen, lists } of [
  { name: 'chips', make: madeUpReport, chosen: /Milan\/[0-9a-f]{128}/, lists: 2 },
  { name: 'platforms', make: madeUpQuote, chosen: /tcb\?/, lists: 4 },
]) {
  test(`strangers that name ${name} without end use up questions of their own tenant, and of no other`, async (t) => {
    const vendors = await startVendors(t)
    const site = await served(t, vendors)
    const shop = await shopOf(site)
    const startMs = performance.now()
    await refuseAll(
      t,
      Array.from({ length: STRANGERS }, () => attest(site, make(), shop)),
    )
    const allowed = AT_HAND + Math.ceil((performance.now() - startMs) / ONE_MORE_MS)
    const questions = asked(vendors, chosen)
    t.true(questions > 0 && questions <= allowed, `${questions} questions, ${allowed} allowed`)
    t.true(vendors.asked.length - questions <= lists, 'and each list once')
    await t.notThrowsAsync(attest(site, bare()), 'an SNP guest of another tenant')
    await t.notThrowsAsync(attest(site, tdxSource()), 'a TD of another tenant')
  })
}

test('machines that prove genuine use up no questions of their tenant, however many they are', async (t) => {
  const vendors = await startVendors(t)
  const site = await served(t, vendors)
  for (let machine = 0; machine < AT_HAND + 8; machine++) {
    const chipId = new Uint8Array(64).fill(machine + 1)
    vendors.chips.push(chipId)
    await t.notThrowsAsync(attest(site, snpSource({ send: [], chipId })))
  }
  t.is(asked(vendors, /Milan\/[0-9a-f]{128}/), AT_HAND + 8)
})
