import { X509Certificate } from 'node:crypto'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { createPodKey, parsePodCertificate, requestFor } from '#attestation/client/pod-identity'
import { createTeeKeyPair, openSealedResource } from '#attestation/client/sealed-resource'
import { parseIdentityGrant } from '#attestation/store/identity-store'
import type { ReleaseCondition } from '#attestation/store/release-condition'
import { RecordedError } from '#attestation/verifier/refusal-record'
import { parseCertificate } from '#attestation/x509/certificate'
import { verifyPath } from '#attestation/x509/path'
import { parsePem } from '#attestation/x509/pem'
import { isDnsName } from '#protocol/dns-name'
import { CaissonError } from '#protocol/errors'
import { encodeKbsAttestation } from '#protocol/kbs-messages'
import { altered, damaged, refusesOrKeeps } from '../parser-property.ts'
import { MANIFEST, MINUTE, type ServedTenant, serveTenant } from './served-tenant.ts'

const DAY = 24 * 60 * MINUTE
const tee = await createTeeKeyPair()
const pod = await createPodKey()

async function tokenOf({ kbs }: ServedTenant, evidence = 'good'): Promise<string> {
  const challenge = await kbs.challenge(Buffer.from('{"version":"0.4.0","tee":"sample","extra-params":""}'))
  const { nonce }: { nonce: string } = JSON.parse(challenge.content)
  const answer = { nonce, teePublicKey: tee.publicKey, primaryEvidence: evidence, additionalEvidence: '' }
  return (await kbs.attest(challenge.cookie, Buffer.from(encodeKbsAttestation(answer)))).content.token
}

async function grant(served: ServedTenant, names: readonly string[], release: ReleaseCondition = { kind: 'attested' }) {
  const { database, identities, clock } = served
  await database.transaction((sql) =>
    identities.put(sql, parseIdentityGrant(names[0] ?? 'none', names, release), new Date(clock.now)),
  )
}

async function certificateOf(served: ServedTenant, names: readonly string[], evidence = 'good') {
  const authorization = `Bearer ${await tokenOf(served, evidence)}`
  const jwe = await served.identity.issue(await requestFor(pod, names), { cookie: undefined, authorization })
  return parsePodCertificate(await openSealedResource(Buffer.from(JSON.stringify(jwe)), tee.privateKey))
}

async function refusedCode(t: ExecutionContext, { log }: ServedTenant, work: Promise<unknown>) {
  const error = await t.throwsAsync(work, { instanceOf: RecordedError })
  const record = await log.find(error?.correlationId ?? '')
  const code = error?.cause instanceof CaissonError ? error.cause.code : undefined
  t.is(record?.code, code)
  return code
}

function accepts(caPem: string, certificatePem: string, at: Date): boolean {
  const anchors = parsePem(caPem).map(({ bytes }) => parseCertificate(bytes))
  const [leaf] = parsePem(certificatePem).map(({ bytes }) => parseCertificate(bytes))
  if (leaf === undefined) return false
  return verifyPath({ leaf, candidates: [], anchors, at }).problems.length === 0
}

test('a guest gets a certificate for its own key with names that are granted, and it is on record', async (t) => {
  const served = await serveTenant(t)
  await grant(served, ['web.shop.example', 'web'])
  const { certificatePem, caPem, expiresAt } = await certificateOf(served, ['web.shop.example', 'web'])
  const certificate = new X509Certificate(certificatePem)
  t.deepEqual(certificate.publicKey.export({ type: 'spki', format: 'der' }), Buffer.from(pod.publicKey))
  t.is(certificate.subjectAltName, 'DNS:web.shop.example, DNS:web')
  t.is(certificate.subject, 'CN=web.shop.example')
  t.false(certificate.ca)
  t.deepEqual(certificate.keyUsage, ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'])
  t.true(certificate.verify(new X509Certificate(caPem).publicKey))
  t.is(certificate.validToDate.getTime(), expiresAt.getTime())
  t.is(expiresAt.getTime(), served.clock.now + 60 * MINUTE)
  t.true(accepts(caPem, certificatePem, new Date(served.clock.now)))
  t.false(accepts(caPem, certificatePem, new Date(expiresAt.getTime() + 1000)))
  const [entry] = await served.audit.list(1)
  t.is(entry?.action, 'identity.issue')
  t.is(entry?.subject, `web.shop.example web serial ${certificate.serialNumber.toLowerCase()}`)
})

test('a name that no grant has, a condition that is not met, and a weak attestation get no certificate', async (t) => {
  const served = await serveTenant(t)
  t.is(await refusedCode(t, served, certificateOf(served, ['web'])), 'ERR_IDENTITY_NAME')
  await grant(served, ['web'])
  await grant(served, ['late'], { kind: 'images', manifests: [MANIFEST] })
  t.is(await refusedCode(t, served, certificateOf(served, ['web', 'other'])), 'ERR_IDENTITY_NAME')
  t.is(await refusedCode(t, served, certificateOf(served, ['late'])), 'ERR_RELEASE_IMAGES')
  t.is(await refusedCode(t, served, certificateOf(served, ['web'], 'weak')), 'ERR_RELEASE_NOT_AFFIRMING')
  await t.notThrowsAsync(certificateOf(served, ['web', 'late'], 'images'))
  await served.database.transaction((sql) => served.identities.remove(sql, 'web'))
  t.is(await refusedCode(t, served, certificateOf(served, ['web'])), 'ERR_IDENTITY_NAME')
})

test('without a token, or without the key it asks for, nobody gets a certificate', async (t) => {
  const served = await serveTenant(t)
  await grant(served, ['web'])
  const nobody = { cookie: undefined, authorization: undefined }
  const request = await requestFor(pod, ['web'])
  t.is(await refusedCode(t, served, served.identity.issue(request, nobody)), 'ERR_TOKEN_MISSING')
  const authorization = `Bearer ${await tokenOf(served)}`
  const other = await createPodKey()
  const stolen = await requestFor({ ...other, publicKey: pod.publicKey }, ['web'])
  const asked = served.identity.issue(stolen, { cookie: undefined, authorization })
  t.is(await refusedCode(t, served, asked), 'ERR_CERTIFICATE_REQUEST_SIGNATURE')
  const garbage = served.identity.issue(Buffer.from('x'), { cookie: undefined, authorization })
  t.is(await refusedCode(t, served, garbage), 'ERR_CERTIFICATE_REQUEST')
})

test('who shows a token that another guest attested cannot read the certificate for its own key', async (t) => {
  const served = await serveTenant(t)
  await grant(served, ['web'])
  const thief = await createPodKey()
  const authorization = `Bearer ${await tokenOf(served)}`
  const jwe = await served.identity.issue(await requestFor(thief, ['web']), { cookie: undefined, authorization })
  const body = Buffer.from(JSON.stringify(jwe))
  t.false(body.toString().includes('CERTIFICATE'))
  const { privateKey } = await createTeeKeyPair()
  await t.throwsAsync(openSealedResource(body, privateKey), { code: 'ERR_RESOURCE_SEAL' })
})

test('a new CA is published a day before it issues, and the old one until its last certificate has expired', async (t) => {
  const served = await serveTenant(t)
  await grant(served, ['web'])
  const issuer = async () => {
    const { certificatePem } = await certificateOf(served, ['web'])
    const published = await served.identityCa.published()
    const at = new Date(served.clock.now)
    return { certificatePem, published, at }
  }
  // Asked every half day for a hundred days: whoever read the published CAs within the last day knows every issuer.
  let before = await issuer()
  const seen = new Set<string>(parsePem(before.published).map(({ bytes }) => Buffer.from(bytes).toString('hex')))
  for (let halfDays = 0; halfDays < 200; halfDays++) {
    served.clock.now += DAY / 2
    const now = await issuer()
    t.true(accepts(before.published, now.certificatePem, now.at), `after ${halfDays} half days`)
    const last = new Date(now.at.getTime() + 59 * MINUTE)
    t.true(accepts(now.published, now.certificatePem, last))
    for (const { bytes } of parsePem(now.published)) seen.add(Buffer.from(bytes).toString('hex'))
    t.true(parsePem(now.published).length <= 2)
    before = now
  }
  t.true(seen.size >= 4)
})

test('CAs of two tenants have nothing in common', async (t) => {
  const served = await serveTenant(t)
  await grant(served, ['web'])
  await served.database.transaction((sql) => served.tenants.put(sql, 'bank', { ...TENANT }, new Date(served.clock.now)))
  const { certificatePem } = await certificateOf(served, ['web'])
  const bank = await served.directory.find('bank')
  t.false(accepts(await bank.identityCa.published(), certificatePem, new Date(served.clock.now)))
  t.deepEqual(await bank.admin.options.identities.list(), [])
})

const TENANT = { admins: [], maxResources: 1, maxResourceBytes: 1, keepAttestations: 1, requestsPerMinute: 60 }

test('a grant has an id and DNS names, or is refused', (t) => {
  const inputs = fc.tuple(
    damaged('web-1'),
    fc.array(fc.oneof(damaged('web.shop.example'), fc.constant('*')), { maxLength: 3 }),
  )
  refusesOrKeeps(
    t,
    inputs,
    ([id, names]) => parseIdentityGrant(id, names, { kind: 'attested' }),
    ({ id, names }) => /^[\w.-]{1,128}$/.test(id) && names.length > 0 && names.every(isDnsName),
  )
})

test('the answer to a request is certificates and a time, or is refused', async (t) => {
  const served = await serveTenant(t)
  await grant(served, ['web'])
  const { certificatePem, caPem, expiresAt } = await certificateOf(served, ['web'])
  const good = { certificate: certificatePem, 'ca-certificates': caPem, 'expires-at': expiresAt.toISOString() }
  refusesOrKeeps(
    t,
    fc.oneof(
      altered(good).map((value) => Buffer.from(JSON.stringify(value))),
      fc.uint8Array(),
    ),
    parsePodCertificate,
    (value) =>
      value.certificatePem === certificatePem && value.caPem === caPem && Number.isFinite(value.expiresAt.getTime()),
  )
})
