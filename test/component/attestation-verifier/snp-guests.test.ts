/** SEV-SNP guests against a running verifier: whole handshakes over TLS, with reports made for each challenge. */
import test, { type ExecutionContext } from 'ava'
import { decodeJwt } from 'jose'
import { VerifierRefusal } from '#attestation/client/verifier-http'
import { createAdminKey } from '#attestation/verifier/admin/authenticator'
import { VerifierAdminClient } from '#attestation/verifier/admin/client'
import { amd, attesterOf, INITDATA, policyWith, type SnpGuest, snpReference, snpSource } from './hardware-guests.ts'
import { type Site, startSite } from './site.ts'

const MEASUREMENT = 'ab'.repeat(48)
const TRUST = policyWith([amd.ark.der])

async function served(t: ExecutionContext, policy = TRUST): Promise<Site> {
  const site = await startSite(t)
  await site.admin.putPolicy('amd', policy)
  await site.admin.putReference(snpReference('web', [{ vcpus: 1, measurement: MEASUREMENT }]))
  await site.admin.putResource('default/tls/key', Buffer.from('tls key'))
  return site
}

/** The attestation must be refused with this code; returns the tenant's record of it. */
async function refused(t: ExecutionContext, site: Site, guest: SnpGuest, code: string) {
  const attester = attesterOf(site, snpSource(guest))
  const error = await t.throwsAsync(attester.attest({ initdataToml: INITDATA }), { instanceOf: VerifierRefusal })
  t.is(error?.refusal.code, code)
  const records = await site.admin.explain(error?.refusal.correlationId ?? '')
  const record = records.find(({ id }) => id === error?.refusal.correlationId)
  t.is(record?.verdict, 'refused')
  return record
}

test('an SNP guest whose maker the tenant trusts attests and gets its resource', async (t) => {
  const site = await served(t)
  const attester = attesterOf(site, snpSource())
  const { token } = await attester.attest({ initdataToml: INITDATA })
  t.is(Buffer.from(await attester.getResource('default/tls/key')).toString(), 'tls key')
  const claims = decodeJwt(token)
  t.like(claims, {
    'caisson.reference': 'web',
    'caisson.policy': 'amd',
    submods: {
      cpu0: {
        'ear.status': 'affirming',
        'ear.appraisal-policy-id': 'web',
        'ear.trustworthiness-vector': { hardware: 2, executables: 3, 'runtime-opaque': 2 },
        'ear.veraison.annotated-evidence': {
          snp: { measurement: MEASUREMENT, product: 'Milan', debug: false, tcb: { microcode: 0xd3 } },
        },
      },
    },
  })
  const [record] = await site.admin.listAttestations({ verdict: 'accepted' })
  t.like(record?.facts, { policy: 'amd', measurement: MEASUREMENT, 'chip-id': 'c1'.repeat(64) })
  const [entry] = (await site.admin.listAudit()).filter(({ action }) => action === 'attest')
  t.is(entry?.actor, `guest ${'c1'.repeat(64)}`)
})

test('without a policy that trusts its maker an SNP guest is refused, and so is any in another tenant', async (t) => {
  const site = await served(t)
  const owner = createAdminKey()
  await site.admin.putTenant('other', { admins: [{ key: owner.publicJwk, role: 'owner' }] })
  const url = `${site.verifier.url}/t/other`
  const other = new VerifierAdminClient({ http: site.http, url, adminKey: owner.privateJwk })
  await other.putReference(snpReference('web', [{ vcpus: 1, measurement: MEASUREMENT }]))
  const attempt = () => attesterOf(site, snpSource(), url).attest({ initdataToml: INITDATA })
  const error = await t.throwsAsync(attempt(), { instanceOf: VerifierRefusal })
  t.is(error?.refusal.code, 'ERR_EVIDENCE_UNVERIFIED')
  await other.putPolicy('amd', TRUST)
  await t.notThrowsAsync(attempt())
  await other.removePolicy('amd')
  await t.throwsAsync(attempt(), { instanceOf: VerifierRefusal }, 'a removed policy counts no more')
})

test('a report that answers another challenge is refused, whatever else is right', async (t) => {
  const site = await served(t)
  await refused(t, site, { binding: () => new Uint8Array(64).fill(7) }, 'ERR_NONCE_MISMATCH')
})

test('a report whose signature does not hold is refused', async (t) => {
  const { privateKey } = (await import('../../fixtures/snp/amd-like.ts')).newVek()
  await refused(t, await served(t), { key: privateKey }, 'ERR_EVIDENCE_UNVERIFIED')
})

test('initdata that the host exchanged is refused: HOST_DATA differs', async (t) => {
  const record = await refused(t, await served(t), { initdata: Buffer.from('another') }, 'ERR_INITDATA_MISMATCH')
  t.true(record?.checks.some(({ claim, ok }) => claim === 'initdata, HOST_DATA' && !ok))
})

test('a guest that its host may debug is refused by default, and accepted where the policy says so', async (t) => {
  const site = await served(t)
  const guest = { policy: 0xb0000n }
  const record = await refused(t, site, guest, 'ERR_EVIDENCE_REFUSED')
  t.regex(record?.reason ?? '', /the host can read and change it/)
  await site.admin.putPolicy('amd', policyWith([amd.ark.der], 'debug: true\n'))
  await t.notThrowsAsync(attesterOf(site, snpSource(guest)).attest({ initdataToml: INITDATA }))
})

test('a TCB below the minimum is explained by component and level', async (t) => {
  const site = await served(t, policyWith([amd.ark.der], 'minimum: { snp: { Milan: { snp: 24, microcode: 211 } } }\n'))
  await t.notThrowsAsync(attesterOf(site, snpSource()).attest({ initdataToml: INITDATA }))
  const tcb = Uint8Array.of(4, 0, 0, 0, 0, 0, 24, 0xd1)
  const record = await refused(t, site, { tcb }, 'ERR_EVIDENCE_REFUSED')
  t.is(record?.reason, 'TCB: microcode 0xd1 < 0xd3 required')
  t.regex(record?.hint ?? '', /Update the platform/)
})

test('evidence that lacks a revocation list is refused as unchecked, with what is missing', async (t) => {
  const record = await refused(t, await served(t), { send: ['VCEK', 'ASK', 'ARK'] }, 'ERR_EVIDENCE_UNCHECKED')
  t.true(record?.checks.some(({ claim }) => claim.startsWith('unchecked_crl')))
})

test('a launch digest that is not registered is refused, and explained where it can be', async (t) => {
  const { LaunchContext } = await import('#attestation/measure/snp/launch-context')
  const site = await served(t)
  const other = await refused(t, site, { measurement: new Uint8Array(48).fill(1) }, 'ERR_MEASUREMENT_MISMATCH')
  t.regex(other?.reason ?? '', /firmware, kernel, initrd, command line or vCPU type differ/)

  const save = new Uint8Array(48).fill(0x5a)
  const digests: Uint8Array[] = [new Uint8Array(48).fill(0x11)]
  for (let vcpus = 2; vcpus <= 4; vcpus++) {
    const context = new LaunchContext(digests.at(-1))
    context.addSaveAreaDigest(save)
    digests.push(context.digest)
  }
  const variant = (vcpus: number) => ({ vcpus, measurement: Buffer.from(digests[vcpus - 1] ?? []).toString('hex') })
  const further = { further_vcpu: Buffer.from(save).toString('hex') }
  await site.admin.putReference(snpReference('db', [variant(1), variant(2)], further))
  const record = await refused(t, site, { measurement: digests[3] ?? save }, 'ERR_MEASUREMENT_MISMATCH')
  t.is(record?.reason, '4 vCPUs have no reference value; 1 and 2 have (db)')
  await t.notThrowsAsync(
    attesterOf(site, snpSource({ measurement: digests[1] ?? save })).attest({ initdataToml: INITDATA }),
  )

  await site.admin.putReference(snpReference('next', [{ vcpus: 1, measurement: '01'.repeat(48) }]), 'candidate')
  const candidate = await refused(t, site, { measurement: new Uint8Array(48).fill(1) }, 'ERR_MEASUREMENT_MISMATCH')
  t.is(candidate?.reason, 'the guest is that of next, which does not count now')
})

test('without reference values a guest is accepted only where the policy lists its measurement', async (t) => {
  const site = await startSite(t)
  await site.admin.putPolicy('amd', TRUST)
  await refused(t, site, {}, 'ERR_NO_REFERENCE_VALUES')
  await site.admin.putPolicy('amd', policyWith([amd.ark.der], `measurements: { measurement: ["${MEASUREMENT}"] }\n`))
  const { token } = await attesterOf(site, snpSource()).attest({ initdataToml: INITDATA })
  t.like(decodeJwt(token), { 'caisson.policy': 'amd', 'caisson.reference': undefined })
})

test('of several policies one must be satisfied as a whole', async (t) => {
  const site = await served(t, policyWith([amd.ark.der], 'conditions: [{ name: no, require: vmpl == 3 }]\n'))
  await site.admin.putPolicy('no-anchors', 'apiVersion: caisson/v1\nkind: AppraisalPolicy\n')
  await refused(t, site, {}, 'ERR_EVIDENCE_REFUSED')
  await site.admin.putPolicy('third', TRUST)
  const { token } = await attesterOf(site, snpSource()).attest({ initdataToml: INITDATA })
  t.is(decodeJwt(token)['caisson.policy'], 'third')
})
