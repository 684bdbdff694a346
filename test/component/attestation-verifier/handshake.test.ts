/** Attestation over HTTPS with real TPMs: what a host may do with the messages between guest and verifier. */
import { json } from 'node:stream/consumers'
import test, { type ExecutionContext } from 'ava'
import { decodeJwt, type JSONWebKeySet } from 'jose'
import { STRICT_POLICY } from '#attestation/appraisal/policy'
import type { EvidenceSource } from '#attestation/client/evidence-source'
import { createTeeKeyPair } from '#attestation/client/sealed-resource'
import { tpmEvidenceSource } from '#attestation/client/tpm-evidence-source'
import { NO_COLLATERAL } from '#attestation/evidence/collateral'
import { verifyEvidence } from '#attestation/evidence/verify-evidence'
import { verifyToken } from '#attestation/token/verify-token'
import type { VerifierConfig } from '#attestation/verifier/verifier'
import { toHex } from '#protocol/encoding'
import type { HttpTransport } from '#protocol/http-transport'
import { nodeCrypto } from '#protocol/node/crypto'
import { admittedImageDigest } from '#protocol/tpm-messages'
import type { Site } from './site.ts'
import { bootTpm, makeTpmCa, sha256, type TestCa } from './software-tpm.ts'

import {
  type Answer,
  attesterOf,
  changingAnswers,
  codeOf,
  HostileTransport,
  IMAGE,
  INITDATA,
  refused,
  siteTrusting,
} from './tpm-guest.ts'

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

test('a guest with a real TPM attests and gets its resource', async (t) => {
  const served = await site(t)
  const tpm = await bootTpm(t, trusted, { initdata: INITDATA })
  const attester = attesterOf(served, tpm)
  const result = await attester.attest({ initdataToml: INITDATA })
  t.true(Math.abs(result.signedTime.getTime() - Date.now()) < 10_000)

  const published = await served.http.request({ method: 'GET', url: `${served.verifier.url}/.well-known/jwks.json` })
  const keys = (await json(published.body)) as JSONWebKeySet
  const claims = verifyToken({ token: result.token, keys, issuer: 'caisson-verifier', now: new Date() })
  t.like(claims, {
    submods: {
      cpu0: {
        'ear.status': 'affirming',
        'ear.appraisal-policy-id': 'guest-1',
        'ear.trustworthiness-vector': { hardware: 0, executables: 3 },
        'ear.veraison.annotated-evidence': { init_data: toHex(sha256(INITDATA)) },
      },
    },
  })
  t.is(claims['caisson.images'], undefined)
  t.is(Buffer.from(await attester.getResource('default/tls/key')).toString(), 'tls key')
  const [record] = await served.admin.listAttestations({ verdict: 'accepted' })
  t.true(record?.checks.every(({ ok }) => ok))
  t.is(record?.id, claims.jti)
})

test('a resource kept for an image comes with the second token, not with the first', async (t) => {
  const served = await site(t)
  const tpm = await bootTpm(t, trusted, { initdata: INITDATA })
  const attester = attesterOf(served, tpm)
  await attester.attest({ initdataToml: INITDATA })
  await refused(t, served, attester.getResource('default/tls/late'), 'ERR_RELEASE_IMAGES')
  await tpm.extend(15, admittedImageDigest(nodeCrypto, IMAGE))
  const { token } = await attester.attest({ initdataToml: INITDATA, images: [IMAGE] })
  const { container, manifest, config } = IMAGE
  t.deepEqual(decodeJwt(token)['caisson.images'], [{ container, manifest, config }])
  t.is(Buffer.from(await attester.getResource('default/tls/late')).toString(), 'late')
})

test('images that were not measured, and measurements that are not listed, are refused', async (t) => {
  const served = await site(t)
  const tpm = await bootTpm(t, trusted, { initdata: INITDATA })
  const attester = attesterOf(served, tpm)
  await refused(t, served, attester.attest({ initdataToml: INITDATA, images: [IMAGE] }), 'ERR_IMAGES_MISMATCH')
  await tpm.extend(15, sha256('something else'))
  await refused(t, served, attester.attest({ initdataToml: INITDATA }), 'ERR_IMAGES_MISMATCH')
  await refused(t, served, attester.attest({ initdataToml: INITDATA, images: [IMAGE] }), 'ERR_IMAGES_MISMATCH')
})

test('a TPM of another CA is refused before it is challenged, and the tenant reads what to do', async (t) => {
  const served = await site(t)
  const attester = attesterOf(served, await bootTpm(t, foreign, { initdata: INITDATA }))
  const record = await refused(t, served, attester.attest({ initdataToml: INITDATA }), 'ERR_EK_UNTRUSTED')
  t.is(record?.stage, 'auth')
  t.truthy(record?.hint)
})

test('by default no TPM is believed', async (t) => {
  const served = await site(t, { trustedTpmCas: [], tpmIntermediates: [] })
  const attester = attesterOf(served, await bootTpm(t, trusted, { initdata: INITDATA }))
  const record = await refused(t, served, attester.attest({ initdataToml: INITDATA }), 'ERR_TPM_NO_TRUSTED_CA')
  t.regex(record?.hint ?? '', /--trust-tpm-ca/)
})

test('an answer that the host sends a second time is refused', async (t) => {
  const served = await site(t)
  const http = new HostileTransport(served.http)
  await attesterOf(served, await bootTpm(t, trusted, { initdata: INITDATA }), { http }).attest({
    initdataToml: INITDATA,
  })
  const answer = http.sent.find(({ url }) => url.endsWith('/attest'))
  if (answer === undefined) return t.fail()
  t.is(await codeOf(served, answer), 'ERR_CHALLENGE_SPENT')
})

test("an old quote under a new challenge is refused, the new challenge's nonce written beside it or not", async (t) => {
  const served = await site(t)
  const tpm = await bootTpm(t, trusted, { initdata: INITDATA })
  let old: Answer | undefined
  const recording = changingAnswers(served.http, (answer) => {
    old = structuredClone(answer)
  })
  await attesterOf(served, tpm, { http: recording }).attest({ initdataToml: INITDATA })

  const whole = changingAnswers(served.http, (answer) => Object.assign(answer, old))
  await refused(
    t,
    served,
    attesterOf(served, tpm, { http: whole }).attest({ initdataToml: INITDATA }),
    'ERR_NONCE_MISMATCH',
  )

  const evidence = changingAnswers(served.http, (answer) => {
    answer['tee-evidence'] = old?.['tee-evidence'] ?? answer['tee-evidence']
  })
  // Another attestation key made the old quote; with the same key it would be the nonce that is missing from it.
  await refused(
    t,
    served,
    attesterOf(served, tpm, { http: evidence }).attest({ initdataToml: INITDATA }),
    'ERR_AK_CHANGED',
  )

  const quote = changingAnswers(served.http, (answer) => {
    const { primary_evidence: primary } = answer['tee-evidence']
    primary.tpm_quote = old?.['tee-evidence'].primary_evidence.tpm_quote ?? primary.tpm_quote
  })
  await refused(
    t,
    served,
    attesterOf(served, tpm, { http: quote }).attest({ initdataToml: INITDATA }),
    'ERR_QUOTE_SIGNATURE',
  )
})

test('an old quote of the same attestation key, beside a fresh proof of the credential, is refused', async (t) => {
  const served = await site(t)
  const tpm = await bootTpm(t, trusted, { initdata: INITDATA })
  const prepared = await tpmEvidenceSource({ tpm, crypto: nodeCrypto }).prepare()
  t.teardown(() => prepared[Symbol.asyncDispose]())
  const evidence: EvidenceSource = { prepare: async () => ({ ...prepared, [Symbol.asyncDispose]: async () => {} }) }
  let old: Answer | undefined
  const http = changingAnswers(served.http, (answer) => {
    const primary = answer['tee-evidence'].primary_evidence
    if (old === undefined) old = structuredClone(answer)
    else primary.tpm_quote = old['tee-evidence'].primary_evidence.tpm_quote
  })
  const attester = attesterOf(served, tpm, { http, evidence })
  await attester.attest({ initdataToml: INITDATA })
  await refused(t, served, attester.attest({ initdataToml: INITDATA }), 'ERR_QUOTE_STALE')
})

test('a key put in place of the guest’s is refused', async (t) => {
  const served = await site(t)
  const tpm = await bootTpm(t, trusted, { initdata: INITDATA })
  const { publicKey } = await createTeeKeyPair()
  const http = changingAnswers(served.http, (answer) => {
    answer['runtime-data']['tee-pubkey'] = publicKey
  })
  await refused(t, served, attesterOf(served, tpm, { http }).attest({ initdataToml: INITDATA }), 'ERR_CREDENTIAL')
})

test("another guest's answer in this guest's session is refused", async (t) => {
  const served = await site(t)
  const [one, other] = [
    await bootTpm(t, trusted, { initdata: INITDATA }),
    await bootTpm(t, trusted, { initdata: INITDATA }),
  ]
  const recorded = new HostileTransport(served.http)
  await attesterOf(served, other, { http: recorded }).attest({ initdataToml: INITDATA })
  const theirs = recorded.sent.find(({ url }) => url.endsWith('/attest'))?.body
  const http = new HostileTransport(served.http, (request) =>
    request.url.endsWith('/attest') && theirs !== undefined ? { ...request, body: theirs } : request,
  )
  await refused(t, served, attesterOf(served, one, { http }).attest({ initdataToml: INITDATA }), 'ERR_NONCE_MISMATCH')
})

test('a challenge of one process is answered at another, once', async (t) => {
  const served = await site(t)
  const second = await served.startSecond()
  const tpm = await bootTpm(t, trusted, { initdata: INITDATA })
  const http = new HostileTransport(served.http, (request) =>
    request.url.includes('/auth') ? request : { ...request, url: request.url.replace(served.verifier.url, second) },
  )
  const attester = attesterOf(served, tpm, { http })
  await attester.attest({ initdataToml: INITDATA })
  t.is(Buffer.from(await attester.getResource('default/tls/key')).toString(), 'tls key')
  const answer = http.sent.find(({ url }) => url === `${second}/kbs/v0/attest`)
  if (answer === undefined) return t.fail()
  t.is(await codeOf(served, { ...answer, url: answer.url.replace(second, served.verifier.url) }), 'ERR_CHALLENGE_SPENT')
})

test('sent to both processes at the same time, one answer gets one token', async (t) => {
  const served = await site(t)
  const second = await served.startSecond()
  const tpm = await bootTpm(t, trusted, { initdata: INITDATA })
  const statuses: number[] = []
  const http: HttpTransport = {
    close: async () => {},
    request: async (request) => {
      if (!request.url.endsWith('/attest')) return await served.http.request(request)
      const urls = [request.url, request.url.replace(served.verifier.url, second)]
      const replies = await Promise.all([...urls, ...urls].map((url) => served.http.request({ ...request, url })))
      statuses.push(...replies.map(({ status }) => status))
      const [winner] = replies.toSorted((a, b) => a.status - b.status)
      if (winner === undefined) throw new Error('no reply')
      for (const reply of replies) if (reply !== winner) await reply.body[Symbol.asyncIterator]().return?.()
      return winner
    },
  }
  await attesterOf(served, tpm, { http }).attest({ initdataToml: INITDATA })
  t.deepEqual(
    statuses.toSorted((a, b) => a - b),
    [200, 401, 401, 401],
  )
})

test('a session that has expired is refused by the verifier’s clock', async (t) => {
  const clock = { offsetMs: 0 }
  const served = await site(t, { now: () => new Date(Date.now() + clock.offsetMs) })
  const tpm = await bootTpm(t, trusted, { initdata: INITDATA })
  const http = new HostileTransport(served.http, (request) => {
    if (request.url.endsWith('/attest')) clock.offsetMs += 6 * 60_000
    return request
  })
  const late = attesterOf(served, tpm, { http }).attest({ initdataToml: INITDATA })
  // The administrator's own token must be current again when the record is looked up.
  const afterwards = late.finally(() => {
    clock.offsetMs = 0
  })
  await refused(t, served, afterwards, 'ERR_SESSION_EXPIRED')
})

test('evidence for a workload is a quote over its data by a key that nobody activates, after any handshake', async (t) => {
  const served = await site(t)
  const tpm = await bootTpm(t, trusted, { initdata: INITDATA })
  const attester = attesterOf(served, tpm)
  // At once: both need the same device, which has room for one at a time.
  const [result, first, second] = await Promise.all([
    attester.attest({ initdataToml: INITDATA }),
    attester.evidence(Buffer.from('nonce of a relying party')),
    attester.evidence(Buffer.from('another')),
  ])
  t.is(await attester.token(), result.token)
  const nonce = Buffer.alloc(64, 0)
  nonce.write('nonce of a relying party')
  for (const [evidence, fresh] of [
    [first, true],
    [second, false],
  ] as const) {
    const judged = await verifyEvidence({
      evidence: Buffer.from(JSON.stringify(evidence)),
      tee: 'tpm',
      collateral: NO_COLLATERAL,
      policy: STRICT_POLICY,
      at: new Date(),
      nonce,
    })
    t.is(judged.format.shape, 'coco-tpm')
    const codes = judged.reasons.map(({ code }) => code)
    t.is(codes.includes('nonce_mismatch'), !fresh)
    t.false(
      codes.some((code) => /signature|pcr_digest|event_log_mismatch/.test(code)),
      codes.join(),
    )
  }
  const keyOf = (evidence: unknown) => (evidence as { ak_public: string }).ak_public
  t.not(keyOf(first), keyOf(second))
})
