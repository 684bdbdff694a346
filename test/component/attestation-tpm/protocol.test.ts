import { randomBytes } from 'node:crypto'
import test, { type ExecutionContext } from 'ava'
import { credentialProof } from '#attestation/tpm/credential-proof'
import { activateCredential, createPrimary, flushContext, quote } from '#attestation/tpm/guest/commands'
import { EMPTY_PASSWORD, runCommand, type TpmDevice } from '#attestation/tpm/guest/device'
import { loadEndorsementKey } from '#attestation/tpm/guest/endorsement-key'
import { extendSha256Pcr, readPcrs } from '#attestation/tpm/guest/pcrs'
import { attestationKeyTemplate, prepareTpmAttestation } from '#attestation/tpm/guest/tpm-attestation'
import { sized, u16, u32 } from '#attestation/tpm/parse/marshal'
import type { BankSelection } from '#attestation/tpm/parse/pcr-selection'
import { encodePublicArea, OBJECT_ATTRIBUTE } from '#attestation/tpm/parse/public-area'
import { checkSameKey, verifyAttestationKey } from '#attestation/tpm/verify/attestation-key'
import { verifyEkChain } from '#attestation/tpm/verify/ek-chain'
import { makeCredential } from '#attestation/tpm/verify/make-credential'
import { verifyQuote } from '#attestation/tpm/verify/quote'
import { concatBytes } from '#protocol/encoding'
import { CaissonError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import { createTpmCa, startTpm, type TpmCa } from '#test/fixtures/tpm/swtpm'

const SELECTION = { bank: 'sha256', pcrs: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15] } as const
const AT = new Date('2030-01-01T00:00:00Z')
const OBJECT_SLOTS = 3

let ca: TpmCa
test.before(async () => {
  ca = await createTpmCa()
})
test.after.always(() => ca.remove())

async function tpm(t: ExecutionContext): Promise<TpmDevice> {
  const running = await startTpm(ca)
  t.teardown(() => running[Symbol.asyncDispose]())
  return running.device
}

/** The verifier's first half: steps 3 to 6. */
function challengeFor(request: { ekCertificate: Uint8Array; akPublic: Uint8Array }) {
  const ek = verifyEkChain({
    certificate: request.ekCertificate,
    roots: [ca.rootPem],
    intermediates: [ca.intermediatePem],
    at: AT,
  })
  const key = verifyAttestationKey(request.akPublic)
  const secret = new Uint8Array(randomBytes(32))
  const credential = makeCredential({ ek, akName: key.name, secret })
  return { ek, key, secret, challenge: { ...credential, pcrSelection: SELECTION } }
}

const reportData = () => new Uint8Array(randomBytes(48))
const empty = { eventLog: new Uint8Array(), images: [] }

/** A guest that answered, and everything the verifier needs to judge. */
async function exchange(device: TpmDevice) {
  await using attestation = await prepareTpmAttestation({ device, crypto: nodeCrypto })
  const verifier = challengeFor(attestation.request)
  const data = reportData()
  const evidence = await attestation.answer({ challenge: verifier.challenge, reportData: data, ...empty })
  return { ...verifier, evidence, reportData: data }
}

type Exchange = Awaited<ReturnType<typeof exchange>>

function judge(answer: Exchange, changes: Partial<Parameters<typeof verifyQuote>[0]> = {}) {
  const { evidence } = answer
  return verifyQuote({
    key: answer.key,
    message: evidence.quote.message,
    signature: evidence.quote.signature,
    qualifyingData: answer.reportData,
    selection: SELECTION,
    pcrs: evidence.quote.pcrs,
    ...changes,
  })
}

/** All object slots can be taken, so nothing was left behind. */
async function assertNothingLoaded(t: ExecutionContext, device: TpmDevice): Promise<void> {
  const handles: number[] = []
  for (let slot = 0; slot < OBJECT_SLOTS; slot++) {
    handles.push((await createPrimary(device, attestationKeyTemplate(new Uint8Array(32)))).handle)
  }
  for (const handle of handles) await flushContext(device, handle)
  t.is(handles.length, OBJECT_SLOTS)
}

test('an honest exchange passes every check on both sides and leaves nothing in the TPM', async (t) => {
  const device = await tpm(t)
  const answer = await exchange(device)
  checkSameKey(answer.key, answer.evidence.akPublic)
  t.deepEqual(answer.evidence.credentialSecret, credentialProof(nodeCrypto, answer.secret, answer.reportData))
  const quoted = judge(answer)
  t.deepEqual([...quoted.pcrs.keys()], [...SELECTION.pcrs])
  t.is(answer.ek.template.kind, 'p-384')
  t.regex(answer.ek.subject, /test-vm/)
  await assertNothingLoaded(t, device)
})

test('an RSA-2048 endorsement key activates a credential too', async (t) => {
  const device = await tpm(t)
  const hideEcc: TpmDevice = {
    // NV_ReadPublic of 01c00016 answers "no such handle"
    submit: async (command) =>
      Buffer.from(command).toString('hex').endsWith('0000016901c00016')
        ? Uint8Array.from(Buffer.from('80010000000a0000018b', 'hex'))
        : device.submit(command),
  }
  const answer = await exchange(hideEcc)
  t.is(answer.ek.template.kind, 'rsa-2048')
  t.deepEqual(answer.evidence.credentialSecret, credentialProof(nodeCrypto, answer.secret, answer.reportData))
  judge(answer)
})

test('each run has an attestation key of its own', async (t) => {
  const device = await tpm(t)
  const [first, second] = [await exchange(device), await exchange(device)]
  t.notDeepEqual(first.evidence.akPublic, second.evidence.akPublic)
  t.is(first.ek.fingerprint, second.ek.fingerprint)
  t.throws(() => checkSameKey(first.key, second.evidence.akPublic), { code: 'ERR_AK_CHANGED' })
})

test('a measured image shows in PCR 15 of the next quote', async (t) => {
  const device = await tpm(t)
  const digest = nodeCrypto.createHash('sha256').digest()
  await extendSha256Pcr(device, 15, digest)
  const hash = nodeCrypto.createHash('sha256')
  hash.update(concatBytes(new Uint8Array(32), digest))
  t.deepEqual(judge(await exchange(device)).pcrs.get(15), hash.digest())
})

test('more than eight PCRs are read as one consistent set', async (t) => {
  const pcrs = Array.from({ length: 24 }, (_, pcr) => pcr)
  const values = await readPcrs(await tpm(t), { bank: 'sha256', pcrs })
  t.is(values.size, 24)
  t.deepEqual(values.get(17), new Uint8Array(32).fill(0xff))
})

test('an old quote under a new challenge is refused', async (t) => {
  const answer = await exchange(await tpm(t))
  t.throws(() => judge(answer, { qualifyingData: reportData() }), { code: 'ERR_QUOTE_STALE' })
})

test('an old secret under a new challenge is refused', async (t) => {
  const answer = await exchange(await tpm(t))
  const expected = credentialProof(nodeCrypto, new Uint8Array(randomBytes(32)), answer.reportData)
  t.false(nodeCrypto.timingSafeEqual(expected, answer.evidence.credentialSecret))
  const moved = credentialProof(nodeCrypto, answer.secret, reportData())
  t.false(nodeCrypto.timingSafeEqual(moved, answer.evidence.credentialSecret))
})

test('a changed PCR value is refused', async (t) => {
  const answer = await exchange(await tpm(t))
  const pcrs = answer.evidence.quote.pcrs.map((value, pcr) => (pcr === 4 ? new Uint8Array(32).fill(1) : value))
  t.throws(() => judge(answer, { pcrs }), { code: 'ERR_QUOTE_PCRS' })
  t.throws(() => judge(answer, { pcrs: pcrs.map((value, pcr) => (pcr === 4 ? undefined : value)) }), {
    code: 'ERR_QUOTE_PCRS',
  })
})

test('every flipped byte of the attest structure or of the signature is refused', async (t) => {
  const answer = await exchange(await tpm(t))
  for (const part of ['message', 'signature'] as const) {
    const bytes = answer.evidence.quote[part]
    for (let index = 0; index < bytes.length; index++) {
      const changed = bytes.slice()
      changed[index] = (changed[index] ?? 0) ^ 0x01
      t.throws(() => judge(answer, { [part]: changed }), { instanceOf: CaissonError }, `${part} byte ${index}`)
    }
  }
})

test('fewer or more PCRs than asked for, or another bank, are refused', async (t) => {
  const device = await tpm(t)
  const selections: BankSelection[] = [
    { bank: 'sha256', pcrs: [0, 2] },
    { bank: 'sha256', pcrs: [...SELECTION.pcrs, 23] },
    { bank: 'sha384', pcrs: SELECTION.pcrs },
    { bank: 'sha1', pcrs: SELECTION.pcrs },
  ]
  const ak = await createPrimary(device, attestationKeyTemplate(new Uint8Array(32)))
  const data = reportData()
  const values = await readPcrs(device, SELECTION)
  for (const selection of selections) {
    const signed = await quote(device, { ak: ak.handle, qualifyingData: data, selection })
    t.throws(
      () =>
        verifyQuote({
          key: verifyAttestationKey(ak.publicArea),
          ...signed,
          qualifyingData: data,
          selection: SELECTION,
          pcrs: Array.from({ length: 24 }, (_, pcr) => values.get(pcr)),
        }),
      { code: 'ERR_QUOTE_SELECTION' },
      selection.bank,
    )
  }
})

test('a bank that is not active is reported, not read as nothing', async (t) => {
  await t.throwsAsync(readPcrs(await tpm(t), { bank: 'sha1', pcrs: [0] }), { code: 'ERR_TPM_BANK' })
})

test('another attestation key of the same TPM does not pass for the first one', async (t) => {
  const device = await tpm(t)
  const [first, second] = [await exchange(device), await exchange(device)]
  t.throws(() => judge(first, { key: second.key }), { code: 'ERR_QUOTE_SIGNATURE' })
})

test('a credential for one attestation key does not open for another', async (t) => {
  const device = await tpm(t)
  await using first = await prepareTpmAttestation({ device, crypto: nodeCrypto })
  const other = await createPrimary(device, attestationKeyTemplate(new Uint8Array(32).fill(1)))
  const { challenge } = challengeFor({ ...first.request, akPublic: other.publicArea })
  const error = await t.throwsAsync(first.answer({ challenge, reportData: reportData(), ...empty }), {
    code: 'ERR_TPM_RESPONSE',
  })
  t.regex(error?.message ?? '', /integrity check failed.*0x1df/)
  await flushContext(device, other.handle)
  await first[Symbol.asyncDispose]()
  await assertNothingLoaded(t, device)
})

test('a credential for the EK of another TPM does not open', async (t) => {
  const otherCa = await createTpmCa()
  t.teardown(() => otherCa.remove())
  const running = await startTpm(otherCa)
  t.teardown(() => running[Symbol.asyncDispose]())
  await using genuine = await prepareTpmAttestation({ device: await tpm(t), crypto: nodeCrypto })
  await using stranger = await prepareTpmAttestation({ device: running.device, crypto: nodeCrypto })
  // The stranger shows the genuine TPM's certificate with its own key.
  const { challenge } = challengeFor({ ...stranger.request, ekCertificate: genuine.request.ekCertificate })
  await t.throwsAsync(stranger.answer({ challenge, reportData: reportData(), ...empty }), { code: 'ERR_TPM_RESPONSE' })
  // And its own certificate is of a CA that nobody pinned, though both CAs have the same names.
  t.throws(() => challengeFor(stranger.request), { code: 'ERR_EK_UNTRUSTED' })
})

test('a software key that the genuine TPM activates is refused for its attributes', async (t) => {
  const device = await tpm(t)
  const ek = await loadEndorsementKey(device)
  const template = attestationKeyTemplate(new Uint8Array(randomBytes(32)))
  const forged = encodePublicArea({
    ...template,
    // What TPM2_LoadExternal takes: userWithAuth and sign, made outside
    attributes: OBJECT_ATTRIBUTE.userWithAuth | OBJECT_ATTRIBUTE.sign,
    x: Uint8Array.from(Buffer.from('6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296', 'hex')),
    y: Uint8Array.from(Buffer.from('4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5', 'hex')),
  })
  const { handle, parameters } = await runCommand(device, {
    name: 'TPM2_LoadExternal',
    code: 0x167,
    handles: [],
    authorizations: [],
    parameters: concatBytes(
      // private key 1, whose public point is the curve's generator
      sized(u16(0x0023), sized(), sized(), sized(Uint8Array.of(...new Uint8Array(31), 1))),
      sized(forged),
      u32(0x40000007),
    ),
    outHandles: 1,
  })
  const name = parameters.bytes(parameters.u16be())
  const { ek: verified } = challengeFor({
    ekCertificate: ek.certificate,
    akPublic: encodePublicArea({ ...template, x: new Uint8Array(32), y: new Uint8Array(32) }),
  })
  const secret = new Uint8Array(randomBytes(32))
  const credential = makeCredential({ ek: verified, akName: name, secret })
  const opened = await activateWithPassword(device, { ak: handle, ek: ek.handle, ...credential })
  t.deepEqual(opened, secret, 'the genuine TPM opens the credential for a key from outside')
  t.throws(() => verifyAttestationKey(forged), { code: 'ERR_AK_UNSUITABLE' })
})

/** The high-range EK has userWithAuth, so its empty password will do. */
async function activateWithPassword(
  device: TpmDevice,
  input: { ak: number; ek: number; credentialBlob: Uint8Array; encryptedSecret: Uint8Array },
): Promise<Uint8Array> {
  return activateCredential(device, { ...input, policySession: EMPTY_PASSWORD.session })
}

test('an unrestricted key of the TPM itself is refused', async (t) => {
  const device = await tpm(t)
  const template = attestationKeyTemplate(new Uint8Array(32))
  const key = await createPrimary(device, {
    ...template,
    attributes: template.attributes & ~OBJECT_ATTRIBUTE.restricted,
  })
  t.throws(() => verifyAttestationKey(key.publicArea), { code: 'ERR_AK_UNSUITABLE' })
})

test('a quote by a key of the owner hierarchy is refused', async (t) => {
  const device = await tpm(t)
  const { handle, parameters } = await runCommand(device, {
    name: 'TPM2_CreatePrimary',
    code: 0x131,
    handles: [0x40000001],
    authorizations: [EMPTY_PASSWORD],
    parameters: concatBytes(
      sized(sized(), sized()),
      sized(encodePublicArea(attestationKeyTemplate(new Uint8Array(32)))),
      sized(),
      u32(0),
    ),
    outHandles: 1,
  })
  const publicArea = parameters.bytes(parameters.u16be())
  const data = reportData()
  const signed = await quote(device, { ak: handle, qualifyingData: data, selection: SELECTION })
  const values = await readPcrs(device, SELECTION)
  const pcrs = Array.from({ length: 24 }, (_, pcr) => values.get(pcr))
  t.throws(
    () =>
      verifyQuote({
        key: verifyAttestationKey(publicArea),
        ...signed,
        qualifyingData: data,
        selection: SELECTION,
        pcrs,
      }),
    { code: 'ERR_QUOTE_SIGNER' },
  )
})

test('an EK certificate is refused outside its validity, without its intermediate, and when changed', async (t) => {
  const device = await tpm(t)
  const { certificate } = await loadEndorsementKey(device)
  const input = { certificate, roots: [ca.rootPem], intermediates: [ca.intermediatePem], at: AT }
  t.is(verifyEkChain(input).template.kind, 'p-384')
  t.is(verifyEkChain({ ...input, roots: [ca.intermediatePem], intermediates: [] }).template.kind, 'p-384')
  t.throws(() => verifyEkChain({ ...input, at: new Date('2020-01-01T00:00:00Z') }), { code: 'ERR_EK_EXPIRED' })
  t.throws(() => verifyEkChain({ ...input, intermediates: [] }), { code: 'ERR_EK_UNTRUSTED' })
  t.throws(() => verifyEkChain({ ...input, roots: [] }), { code: 'ERR_EK_UNTRUSTED' })
  for (let index = 0; index < certificate.length; index += 7) {
    const changed = certificate.slice()
    changed[index] = (changed[index] ?? 0) ^ 0x01
    t.throws(() => verifyEkChain({ ...input, certificate: changed }), { instanceOf: CaissonError }, `byte ${index}`)
  }
})

test('a CA certificate is not taken for that of an endorsement key', (t) => {
  const der = new Uint8Array(Buffer.from(ca.intermediatePem.replace(/-----[^-]+-----|\s/g, ''), 'base64'))
  t.throws(() => verifyEkChain({ certificate: der, roots: [ca.rootPem], intermediates: [], at: AT }), {
    code: 'ERR_EK_CERTIFICATE',
  })
})

test('a TPM without an EK certificate is named as such', async (t) => {
  const device = await tpm(t)
  const bare: TpmDevice = {
    submit: async (command) =>
      command[9] === 0x69 ? Uint8Array.from(Buffer.from('80010000000a0000018b', 'hex')) : device.submit(command),
  }
  await t.throwsAsync(loadEndorsementKey(bare), { code: 'ERR_TPM_NO_EK_CERTIFICATE' })
})

test('the TPM’s wish to be asked again is granted', async (t) => {
  const device = await tpm(t)
  const commands = new Map<string, number>()
  const retrying: TpmDevice = {
    submit: async (command) => {
      const key = Buffer.from(command).toString('hex')
      const times = (commands.get(key) ?? 0) + 1
      commands.set(key, times)
      return times === 1 ? Uint8Array.from(Buffer.from('80010000000a00000922', 'hex')) : device.submit(command)
    },
  }
  const answer = await exchange(retrying)
  t.is(judge(answer).attest.extraData.length, 48)
})
