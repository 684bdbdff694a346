import test, { type ExecutionContext } from 'ava'
import { decodeJwt } from 'jose'
import type { VerifierConfig } from '#attestation/verifier/verifier'
import { toHex } from '#protocol/encoding'
import { encodeInitdata } from '#protocol/initdata'
import { referenceFor } from './reference.ts'
import { type Site, startSite } from './site.ts'
import { BOOT_EVENTS, bootTpm, makeTpmCa, sha256, type TestCa } from './software-tpm.ts'

import { attesterOf, INITDATA, refused, siteTrusting } from './tpm-guest.ts'

let trusted: TestCa & { remove(): void }
let foreign: TestCa & { remove(): void }
test.before(async () => {
  trusted = await makeTpmCa()
  foreign = await makeTpmCa()
})
test.after.always(() => {
  trusted.remove()
  foreign.remove()
})

const site = (t: ExecutionContext, config: Partial<VerifierConfig> = {}): Promise<Site> =>
  siteTrusting(t, trusted, config)

test('a guest that booted something else is refused, and the record names the PCR with both values', async (t) => {
  const served = await site(t)
  const events = BOOT_EVENTS.map((event) => (event.pcr === 9 ? { ...event, data: 'command line init=/bin/sh' } : event))
  const tpm = await bootTpm(t, trusted, { initdata: INITDATA, events })
  const record = await refused(
    t,
    served,
    attesterOf(served, tpm).attest({ initdataToml: INITDATA }),
    'ERR_PCR_MISMATCH',
  )
  const wrong = record?.checks.filter(({ ok }) => !ok) ?? []
  t.is(wrong.length, 1)
  t.regex(wrong[0]?.claim ?? '', /9/)
  t.not(wrong[0]?.expected, wrong[0]?.found)
  t.truthy(wrong[0]?.remedy)
})

test('a mixture of two registered guests is refused: values match as one document or not at all', async (t) => {
  const served = await site(t)
  const mixed = BOOT_EVENTS.map((event) => (event.pcr === 9 ? { ...event, data: 'other command line' } : event))
  const both = mixed.map((event) => (event.pcr === 4 ? { ...event, data: 'other kernel' } : event))
  await served.admin.putReference(referenceFor('guest-2', { initdata: INITDATA, events: both }))
  const tpm = await bootTpm(t, trusted, { initdata: INITDATA, events: mixed })
  await refused(t, served, attesterOf(served, tpm).attest({ initdataToml: INITDATA }), 'ERR_PCR_MISMATCH')
})

test('initdata that the host exchanged is refused, whether the guest shows the old or the new', async (t) => {
  const served = await site(t)
  const exchanged = Buffer.from(INITDATA.toString().replace('"x"', '"y"'))
  const tpm = await bootTpm(t, trusted, { initdata: exchanged })
  await refused(t, served, attesterOf(served, tpm).attest({ initdataToml: exchanged }), 'ERR_PCR_MISMATCH')
  await refused(t, served, attesterOf(served, tpm).attest({ initdataToml: INITDATA }), 'ERR_INITDATA_MISMATCH')
})

test('without reference values nothing matches, and the record says so', async (t) => {
  const served = await site(t)
  await served.admin.removeReference('guest-1')
  const tpm = await bootTpm(t, trusted, { initdata: INITDATA })
  const record = await refused(
    t,
    served,
    attesterOf(served, tpm).attest({ initdataToml: INITDATA }),
    'ERR_NO_REFERENCE_VALUES',
  )
  t.regex(`${record?.reason} ${record?.hint}`, /caisson measure|reference/)
})

test('a verifier does not start with a CA file that it cannot read whole', async (t) => {
  for (const pem of ['', 'x', `${trusted.rootPem}-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n`]) {
    await t.throwsAsync(site(t, { trustedTpmCas: [pem] }), { code: 'ERR_TPM_CA' })
  }
  await t.throwsAsync(site(t, { trustedTpmCas: ['-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----'] }), {
    code: 'ERR_CERTIFICATE',
  })
})

test('root and intermediate in one file are both read', async (t) => {
  const served = await site(t, { trustedTpmCas: [trusted.rootPem + trusted.intermediatePem], tpmIntermediates: [] })
  const attester = attesterOf(served, await bootTpm(t, trusted, { initdata: INITDATA }))
  await t.notThrowsAsync(attester.attest({ initdataToml: INITDATA }))
})

test('a TPM that is a program needs a policy that names its CA and permits emulated ones', async (t) => {
  const served = await startSite(t)
  await served.admin.putReference(referenceFor('guest-1', { initdata: INITDATA }))
  const tpm = await bootTpm(t, trusted, { initdata: INITDATA })
  const attempt = () => attesterOf(served, tpm).attest({ initdataToml: INITDATA })
  await refused(t, served, attempt(), 'ERR_TPM_NO_TRUSTED_CA')
  const policy = (more: string, ...pems: string[]) => {
    const anchors = pems.map((pem) => `  - |\n${pem.trim().replace(/^/gm, '    ')}`).join('\n')
    return `apiVersion: caisson/v1\nkind: AppraisalPolicy\nanchors:\n${anchors}\n${more}`
  }
  await served.admin.putPolicy('foreign', policy('emulated: true\n', foreign.rootPem, foreign.intermediatePem))
  await refused(t, served, attempt(), 'ERR_EK_UNTRUSTED')
  await served.admin.putPolicy('ours', policy('', trusted.rootPem, trusted.intermediatePem))
  const record = await refused(t, served, attempt(), 'ERR_EVIDENCE_REFUSED')
  t.true(record?.checks.some(({ claim, ok }) => claim.startsWith('emulated') && !ok))
  await served.admin.putPolicy('ours', policy('emulated: true\n', trusted.rootPem, trusted.intermediatePem))
  const { token } = await attempt()
  t.is(decodeJwt(token)['caisson.policy'], 'ours')
})

test('the token names the digest of the workload policy, and a guest with another policy attests as what it is, or not at all', async (t) => {
  const served = await site(t)
  const policies = ['web', 'other'].map((name) => `containers:\n  - name: ${name}\n`)
  const [ours = '', others = ''] = policies
  const initdata = (policyYaml: string) =>
    encodeInitdata({
      verifier: undefined,
      registryCaPem: [],
      imagePolicyResource: undefined,
      registryCredentialsResource: undefined,
      policyYaml,
      tenantKeyJwk: undefined,
    })
  await served.admin.putReference(referenceFor('with-policy', { initdata: initdata(ours) }))
  const claimsOf = async (booted: Uint8Array) => {
    const attester = attesterOf(served, await bootTpm(t, trusted, { initdata: booted }))
    const { token } = await attester.attest({ initdataToml: booted })
    return decodeJwt(token)
  }
  const evidence = {
    init_data: toHex(sha256(initdata(ours))),
    init_data_claims: { 'policy.yaml': `sha256:${toHex(sha256(Buffer.from(ours)))}` },
  }
  t.like(await claimsOf(initdata(ours)), { submods: { cpu0: { 'ear.veraison.annotated-evidence': evidence } } })
  await refused(t, served, claimsOf(initdata(others)), 'ERR_PCR_MISMATCH')

  // Registered as well, it attests as what it is; what is kept for the one policy is not for the other.
  await served.admin.putReference(referenceFor('other-policy', { initdata: initdata(others) }))
  const require = `documents["policy.yaml"] == "${evidence.init_data_claims['policy.yaml']}"`
  await served.admin.putResource('default/app/kept', Buffer.from('kept'), { kind: 'attested', require })
  const guestOf = async (booted: Uint8Array) => {
    const attester = attesterOf(served, await bootTpm(t, trusted, { initdata: booted }))
    await attester.attest({ initdataToml: booted })
    return attester
  }
  t.is(Buffer.from(await (await guestOf(initdata(ours))).getResource('default/app/kept')).toString(), 'kept')
  const other = await guestOf(initdata(others))
  await refused(t, served, other.getResource('default/app/kept'), 'ERR_RELEASE_CLAIMS')
})
