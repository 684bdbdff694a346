/**
 * Verdicts about evidence of a real (software) TPM whose PCRs went through a recorded boot, event by event: honest, and
 * with one thing wrong at a time.
 */
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { parseReferenceValues, type TpmReferenceValues } from '#attestation/measure/reference-values'
import { replay } from '#attestation/measure/tpm/predict-pcrs'
import { appraiseTpmEvidence, QUOTED_PCRS, type TpmAppraisalInput } from '#attestation/tpm/appraise'
import { extendSha256Pcr } from '#attestation/tpm/guest/pcrs'
import { prepareTpmAttestation } from '#attestation/tpm/guest/tpm-attestation'
import { describeEvent } from '#attestation/tpm/parse/describe-event'
import { EventLogError, parseEventLog } from '#attestation/tpm/parse/event-log'
import { eventTypeName } from '#attestation/tpm/parse/event-types'
import { verifyAttestationKey } from '#attestation/tpm/verify/attestation-key'
import { verifyEkChain } from '#attestation/tpm/verify/ek-chain'
import { makeCredential } from '#attestation/tpm/verify/make-credential'
import { toHex } from '#protocol/encoding'
import { nodeCrypto } from '#protocol/node/crypto'
import { type AdmittedImage, admittedImageDigest } from '#protocol/tpm-messages'
import { createTpmCa, startTpm, type TpmCa } from '#test/fixtures/tpm/swtpm'

const EVENT_LOG = new Uint8Array(readFileSync(new URL('../../fixtures/tpm/direct-boot.bin', import.meta.url)))
const RECORDED: { commandLine: string } = JSON.parse(
  readFileSync(new URL('../../fixtures/tpm/direct-boot.json', import.meta.url), 'utf8'),
)
const INITDATA = 'version = "0.1.0"\nalgorithm = "sha256"\n'
const IMAGE: AdmittedImage = {
  container: 'web',
  manifest: `sha256:${'a'.repeat(64)}`,
  config: `sha256:${'b'.repeat(64)}`,
  diffIds: [`sha256:${'c'.repeat(64)}`],
}

let ca: TpmCa
test.before(async () => {
  ca = await createTpmCa()
})
test.after.always(() => ca.remove())

const sha256 = (text: string): Uint8Array => new Uint8Array(createHash('sha256').update(text).digest())

interface Scenario {
  readonly initdata?: string
  readonly images?: readonly AdmittedImage[]
  /** Events that the firmware measured; the log stays as recorded. */
  readonly skipEvent?: number
}

/** A guest that booted as recorded, measured its initdata and images, and answered a challenge. */
async function boot(t: ExecutionContext, scenario: Scenario = {}): Promise<TpmAppraisalInput> {
  const running = await startTpm(ca)
  t.teardown(() => running[Symbol.asyncDispose]())
  const { device } = running
  for (const [index, event] of parseEventLog(EVENT_LOG).events.entries()) {
    if (index === scenario.skipEvent) continue
    await extendSha256Pcr(device, event.pcr, event.digests.sha256 ?? new Uint8Array())
  }
  if (scenario.initdata !== undefined) await extendSha256Pcr(device, 8, sha256(scenario.initdata))
  const images = scenario.images ?? []
  for (const image of images) await extendSha256Pcr(device, 15, admittedImageDigest(nodeCrypto, image))

  await using attestation = await prepareTpmAttestation({ device, crypto: nodeCrypto })
  const ek = verifyEkChain({
    certificate: attestation.request.ekCertificate,
    roots: [ca.rootPem],
    intermediates: [ca.intermediatePem],
    at: new Date('2030-01-01T00:00:00Z'),
  })
  const key = verifyAttestationKey(attestation.request.akPublic)
  const secret = new Uint8Array(randomBytes(32))
  const reportData = new Uint8Array(randomBytes(48))
  const evidence = await attestation.answer({
    challenge: {
      ...makeCredential({ ek, akName: key.name, secret }),
      pcrSelection: { bank: 'sha256', pcrs: QUOTED_PCRS.pcrs },
    },
    reportData,
    eventLog: EVENT_LOG,
    images,
  })
  return { evidence, key, secret, reportData, initdataToml: scenario.initdata, references: [referenceFor(INITDATA)] }
}

/** What `caisson measure` would have predicted for the recorded boot. */
function referenceFor(initdata: string, id = 'recorded'): TpmReferenceValues {
  const events = parseEventLog(EVENT_LOG)
    .events.filter(({ pcr }) => [0, 2, 4, 7, 9].includes(pcr))
    .map(({ pcr, type, data, digests }) => ({
      pcr,
      type: eventTypeName(type),
      description: describeEvent(type, data),
      digest: toHex(digests.sha256 ?? new Uint8Array()),
    }))
  events.push({ pcr: 8, type: 'initdata', description: 'initdata', digest: toHex(sha256(initdata)) })
  const pcrs = Object.fromEntries([0, 2, 4, 7, 8, 9].map((pcr) => [pcr, replay(events, pcr)]))
  const zero = '0'.repeat(64)
  return parseReferenceValues(
    JSON.stringify({
      version: 1,
      platform: 'tpm',
      id,
      pcrs: { sha256: pcrs },
      events,
      artefacts: { firmware: zero, kernel: zero, initdata: zero, cmdline: RECORDED.commandLine, vcpus: 1 },
    }),
  )
}

/** The reference values of a boot in which the first event of this PCR was another one. */
function otherReference(pcr: number): TpmReferenceValues {
  const reference = referenceFor(INITDATA, `other-${pcr}`)
  const at = reference.events.findIndex((event) => event.pcr === pcr)
  const events = reference.events.map((event, index) => (index === at ? { ...event, digest: '1'.repeat(64) } : event))
  return { ...reference, events, pcrs: { sha256: { ...reference.pcrs.sha256, [pcr]: replay(events, pcr) } } }
}

test('a boot as predicted is accepted, check by check, without a claim about hardware', async (t) => {
  const verdict = appraiseTpmEvidence(await boot(t, { initdata: INITDATA }))
  t.true(verdict.accepted)
  if (!verdict.accepted) return
  t.is(verdict.referenceId, 'recorded')
  t.is(verdict.initdataDigest, toHex(sha256(INITDATA)))
  t.is(verdict.vector.hardware, 0)
  t.true(verdict.checks.every(({ ok }) => ok))
  t.deepEqual(
    verdict.checks.map(({ claim }) => claim.split(' (')[0]),
    [
      'attestation key',
      'credential secret',
      'quote',
      'event log',
      'initdata, pcr 8',
      '0 admitted images, pcr 15',
      'pcr 0',
      'pcr 2',
      'pcr 4',
      'pcr 7',
      'pcr 8',
      'pcr 9',
    ],
  )
  t.true(verdict.claims.events.includes('9 EV_EVENT_TAG: 0x8f3b22ed "LOADED_IMAGE::LoadOptions"'))
})

test('images that were measured are part of the verdict', async (t) => {
  const verdict = appraiseTpmEvidence(await boot(t, { initdata: INITDATA, images: [IMAGE] }))
  t.true(verdict.accepted)
  if (verdict.accepted) t.deepEqual(verdict.images, [IMAGE])
})

async function refused(t: ExecutionContext, input: TpmAppraisalInput, code: string, reason: RegExp): Promise<void> {
  const verdict = appraiseTpmEvidence(input)
  if (verdict.accepted) return t.fail('accepted')
  t.is(verdict.code, code)
  t.regex(verdict.reason, reason)
  t.truthy(verdict.hint)
  t.true(verdict.checks.some(({ ok }) => !ok))
}

test('images that were claimed but not measured, or measured in another order, are refused', async (t) => {
  const honest = await boot(t, { initdata: INITDATA, images: [IMAGE, { ...IMAGE, container: 'db' }] })
  for (const images of [[], [IMAGE], honest.evidence.images.toReversed(), [...honest.evidence.images, IMAGE]]) {
    const verdict = appraiseTpmEvidence({ ...honest, evidence: { ...honest.evidence, images } })
    t.like(verdict, { accepted: false, code: 'ERR_IMAGES_MISMATCH' })
  }
})

test('exchanged initdata is refused, whichever side was told the truth', async (t) => {
  const exchanged = await boot(t, { initdata: 'version = "0.1.0"\n# evil\n' })
  t.like(appraiseTpmEvidence({ ...exchanged, initdataToml: INITDATA }), {
    accepted: false,
    code: 'ERR_INITDATA_MISMATCH',
  })
  await refused(t, exchanged, 'ERR_PCR_MISMATCH', /the initdata that the guest measured is not the registered one/)
  t.like(appraiseTpmEvidence({ ...exchanged, initdataToml: undefined }), {
    accepted: false,
    code: 'ERR_INITDATA_MISMATCH',
  })
})

test('a guest that measured no initdata is refused', async (t) => {
  const verdict = appraiseTpmEvidence({ ...(await boot(t)), initdataToml: INITDATA })
  t.like(verdict, { accepted: false, code: 'ERR_INITDATA_MISMATCH' })
})

for (const [pcr, reason] of [
  [0, /the firmware differs/],
  [2, /option ROMs/],
  [4, /another kernel image was started/],
  [7, /the secure-boot state differs: .*SecureBoot/],
  [9, /the kernel command line differs/],
] as const) {
  test(`an unexpected PCR ${pcr} is refused, and the reason says what differs`, async (t) => {
    const honest = await boot(t, { initdata: INITDATA })
    await refused(t, { ...honest, references: [otherReference(pcr)] }, 'ERR_PCR_MISMATCH', reason)
    t.true(appraiseTpmEvidence({ ...honest, references: [otherReference(pcr), referenceFor(INITDATA)] }).accepted)
  })
}

test('values of two documents do not add up to one match', async (t) => {
  const honest = await boot(t, { initdata: INITDATA })
  const verdict = appraiseTpmEvidence({ ...honest, references: [otherReference(4), otherReference(9)] })
  t.like(verdict, { accepted: false, code: 'ERR_PCR_MISMATCH' })
})

test('without reference values nothing is expected, so nothing is accepted', async (t) => {
  const verdict = appraiseTpmEvidence({ ...(await boot(t, { initdata: INITDATA })), references: [] })
  t.like(verdict, { accepted: false, code: 'ERR_NO_REFERENCE_VALUES' })
})

test('a log that does not replay to the quoted PCRs is refused, even where the PCRs are as expected', async (t) => {
  const honest = await boot(t, { initdata: INITDATA })
  const log = honest.evidence.eventLog.slice()
  const at = Buffer.from(log).lastIndexOf(Buffer.from('d8043d6b7b85ad35', 'hex')) // an event of PCR 5
  log[at] = 0
  await refused(t, { ...honest, evidence: { ...honest.evidence, eventLog: log } }, 'ERR_EVENT_LOG_MISMATCH', /pcr 5/)
  await refused(t, await boot(t, { initdata: INITDATA, skipEvent: 0 }), 'ERR_EVENT_LOG_MISMATCH', /pcr 0/)
})

test('a log that cannot be read is malformed evidence', async (t) => {
  const honest = await boot(t, { initdata: INITDATA })
  const evidence = { ...honest.evidence, eventLog: honest.evidence.eventLog.slice(0, 100) }
  t.throws(() => appraiseTpmEvidence({ ...honest, evidence }), { instanceOf: EventLogError })
})

test('an answer to another challenge, for another key or with another proof is refused', async (t) => {
  const [first, second] = [await boot(t, { initdata: INITDATA }), await boot(t, { initdata: INITDATA })]
  t.like(appraiseTpmEvidence({ ...first, key: second.key }), { accepted: false, code: 'ERR_AK_CHANGED' })
  t.like(appraiseTpmEvidence({ ...first, secret: second.secret }), { accepted: false, code: 'ERR_CREDENTIAL' })
  t.like(appraiseTpmEvidence({ ...first, reportData: second.reportData }), { accepted: false, code: 'ERR_CREDENTIAL' })
  // A fresh proof with an old quote: the proof holds, the quote does not.
  const evidence = { ...second.evidence, akPublic: first.evidence.akPublic, quote: second.evidence.quote }
  t.like(
    appraiseTpmEvidence({ ...first, evidence: { ...evidence, credentialSecret: first.evidence.credentialSecret } }),
    {
      accepted: false,
      code: 'ERR_QUOTE_SIGNATURE',
    },
  )
})
