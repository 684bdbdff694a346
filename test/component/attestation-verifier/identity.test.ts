import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, createServer, type TLSSocket } from 'node:tls'
import test, { type ExecutionContext } from 'ava'
import { Attester } from '#attestation/client/attester'
import { createPodKey, requestFor } from '#attestation/client/pod-identity'
import { tpmEvidenceSource } from '#attestation/client/tpm-evidence-source'
import { VerifierRefusal } from '#attestation/client/verifier-http'
import { parseReleaseCondition, type ReleaseLimits } from '#attestation/store/release-condition'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'
import type { VerifierConfig } from '#attestation/verifier/verifier'
import { parseCertificateRequest, verifyCertificateRequest } from '#attestation/x509/certificate-request'
import { provideIdentity } from '#guest/agent/pod-identity'
import { NodeClock } from '#guest/platform/node/clock'
import { nodeFiles } from '#guest/platform/node/files'
import { nodeCrypto } from '#protocol/node/crypto'
import { FakePlatform } from '../../unit/guest/fake-platform.ts'
import { referenceFor } from './reference.ts'
import { type Site, startSite } from './site.ts'
import { bootTpm, makeTpmCa, type TestCa } from './software-tpm.ts'

const INITDATA = Buffer.from('version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"policy.yaml" = "x"\n')
const MANIFEST = `sha256:${'1'.repeat(64)}`

let tpms: TestCa & { remove(): void }
test.before(async () => {
  tpms = await makeTpmCa()
})
test.after.always(() => tpms.remove())

async function site(t: ExecutionContext, config: Partial<VerifierConfig> = {}): Promise<Site> {
  const trust = { trustedTpmCas: [tpms.rootPem], tpmIntermediates: [tpms.intermediatePem] }
  const served = await startSite(t, { ...trust, ...config })
  await served.admin.putReference(referenceFor('guest-1', { initdata: INITDATA }))
  await served.admin.putIdentity('web', ['web.shop.example'])
  await served.admin.putIdentity('db', ['db.shop.example'])
  return served
}

async function attestedGuest(t: ExecutionContext, { http, verifier }: Site): Promise<Attester> {
  const tpm = await bootTpm(t, tpms, { initdata: INITDATA })
  const evidence = tpmEvidenceSource({ tpm, crypto: nodeCrypto })
  const backOff = { attempts: 1, firstDelayMs: 1, maxDelayMs: 1 }
  const guest = new Attester({ http, crypto: nodeCrypto, evidence, url: verifier.url, now: () => new Date(), backOff })
  await guest.attest({ initdataToml: INITDATA })
  return guest
}

interface Identity {
  readonly key: string
  readonly cert: string
  readonly ca: string
}

/** The files of a container, written by the agent's own code onto this machine's disk. */
async function podOf(t: ExecutionContext, served: Site, name: string): Promise<Identity> {
  const guest = await attestedGuest(t, served)
  const directory = mkdtempSync(join(tmpdir(), 'caisson-identity-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const stack = new AsyncDisposableStack()
  t.teardown(() => stack.disposeAsync())
  const platform = Object.assign(new FakePlatform(), { files: nodeFiles, clock: new NodeClock() })
  const rule = { path: '/run/identity', names: [name], uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
  const certificate = (request: Uint8Array) => guest.getCertificate(request)
  await provideIdentity({ platform, certificate }, rule, directory, stack)
  const read = (file: string) => readFileSync(join(directory, file), 'utf8')
  t.is(statSync(join(directory, 'key.pem')).mode & 0o777, 0o400)
  return { key: read('key.pem'), cert: read('cert.pem'), ca: read('ca.pem') }
}

interface Meeting {
  /** What the server learns of its client, and the client of its server; or why there is no connection. */
  readonly serverSaw: string
  readonly clientSaw: string
}

/** A connection over TCP in which both sides must prove who they are. */
async function meet(server: Identity, client: Partial<Identity> & { ca: string }, name: string): Promise<Meeting> {
  let serverSaw = 'nobody'
  const listener = createServer({ ...server, requestCert: true, rejectUnauthorized: true }, (socket) => {
    serverSaw = String(socket.getPeerX509Certificate()?.subjectAltName)
    socket.end('hello')
  })
  listener.on('tlsClientError', (error) => {
    serverSaw = 'code' in error ? String(error.code) : error.message
  })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as AddressInfo
  const socket: TLSSocket = connect({ ...client, host: '127.0.0.1', port, servername: name })
  const clientSaw = await new Promise<string>((resolve) => {
    let saw = 'nothing'
    socket.on('data', () => {
      saw = String(socket.getPeerX509Certificate()?.subjectAltName)
    })
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    socket.on('close', () => resolve(saw))
  })
  socket.destroy()
  const closed = once(listener, 'close')
  listener.close()
  await closed
  return { serverSaw, clientSaw }
}

test('two attested pods know each other by name over TLS, and no impostor passes for one of them', async (t) => {
  const served = await site(t)
  const [web, db] = [await podOf(t, served, 'web.shop.example'), await podOf(t, served, 'db.shop.example')]
  t.deepEqual(await meet(db, web, 'db.shop.example'), {
    serverSaw: 'DNS:web.shop.example',
    clientSaw: 'DNS:db.shop.example',
  })
  // One pod is not another, for all that both are attested.
  t.is((await meet(web, db, 'db.shop.example')).clientSaw, 'ERR_TLS_CERT_ALTNAME_INVALID')

  const foreign = createCa()
  const made = issueServerCertificate({ ca: foreign, names: ['db.shop.example'] })
  const impostor = { key: made.privateKeyPem, cert: made.certificatePem, ca: web.ca }
  t.is((await meet(impostor, web, 'db.shop.example')).clientSaw, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE')
  t.not((await meet(db, impostor, 'db.shop.example')).serverSaw, 'DNS:db.shop.example')
  t.is((await meet(db, { ca: web.ca }, 'db.shop.example')).serverSaw, 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE')
})

test('outsiders read the CAs of pods where the verifier publishes them', async (t) => {
  const served = await site(t)
  const db = await podOf(t, served, 'db.shop.example')
  const { body, headers } = await served.http.request({
    method: 'GET',
    url: `${served.verifier.url}/.well-known/identity-ca.pem`,
  })
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk)
  t.is(Buffer.concat(chunks).toString(), db.ca)
  t.is(headers['content-type'], 'application/pem-certificate-chain')
  const other = await site(t)
  const elsewhere = await podOf(t, other, 'db.shop.example')
  const client = await podOf(t, served, 'web.shop.example')
  // Its chain ends at the CA of the same name that another verifier made.
  t.is((await meet(elsewhere, client, 'db.shop.example')).clientSaw, 'SELF_SIGNED_CERT_IN_CHAIN')
})

test('names need a grant, a grant its image, reference values and condition, and the tenant reads why there was no certificate', async (t) => {
  const served = await site(t)
  const guest = await attestedGuest(t, served)
  const key = await createPodKey()
  const ask = async (...names: readonly string[]) => guest.getCertificate(await requestFor(key, names))
  await t.notThrowsAsync(ask('web.shop.example'))
  const error = await t.throwsAsync(ask('web.shop.example', 'pay.shop.example'), { instanceOf: VerifierRefusal })
  t.is(error?.refusal.code, 'ERR_IDENTITY_NAME')
  t.false(error?.message.includes('pay.shop.example'))
  const records = await served.admin.explain(error?.refusal.correlationId ?? '')
  const record = records.find(({ code }) => code === 'ERR_IDENTITY_NAME')
  t.is(record?.checks[0]?.found, 'pay.shop.example')
  t.regex(record?.hint ?? '', /identity put/)

  await served.admin.putIdentity('pay', ['pay.shop.example'], parseReleaseCondition('images', [MANIFEST]))
  const unmet = await t.throwsAsync(ask('pay.shop.example'), { instanceOf: VerifierRefusal })
  t.is(unmet?.refusal.code, 'ERR_RELEASE_IMAGES')
  const grant = (limits: ReleaseLimits) =>
    served.admin.putIdentity('pay', ['pay.shop.example'], parseReleaseCondition('attested', [], limits))
  const narrower = [
    [{ references: ['guest-2'] }, 'ERR_RELEASE_REFERENCE'],
    [{ require: 'reference == "guest-2"' }, 'ERR_RELEASE_CLAIMS'],
    [{ references: ['guest-1'], require: 'reference == "guest-2"' }, 'ERR_RELEASE_CLAIMS'],
  ] as const
  for (const [limits, code] of narrower) {
    await grant(limits)
    const refused = await t.throwsAsync(ask('pay.shop.example'), { instanceOf: VerifierRefusal })
    t.is(refused?.refusal.code, code)
  }
  const met = { references: ['guest-1', 'guest-2'], require: 'reference == "guest-1"' }
  await grant(met)
  await t.notThrowsAsync(ask('pay.shop.example'))
  t.like((await served.admin.listIdentities())[1], { id: 'pay', release: { kind: 'attested', ...met } })
  await served.admin.putIdentity('pay', ['pay.shop.example'], parseReleaseCondition('images', [MANIFEST]))
  t.deepEqual(
    (await served.admin.listIdentities()).map(({ id, names, release }) => [id, names, release.kind]),
    [
      ['db', ['db.shop.example'], 'attested'],
      ['pay', ['pay.shop.example'], 'images'],
      ['web', ['web.shop.example'], 'attested'],
    ],
  )
  await served.admin.removeIdentity('web')
  const removed = await t.throwsAsync(ask('web.shop.example'), { instanceOf: VerifierRefusal })
  t.is(removed?.refusal.code, 'ERR_IDENTITY_NAME')
  const gone = await t.throwsAsync(served.admin.removeIdentity('web'), { instanceOf: VerifierRefusal })
  t.is(gone?.refusal.code, 'ERR_IDENTITY_NOT_FOUND')
  const wrong = await t.throwsAsync(served.admin.putIdentity('all', ['*.shop.example']), {
    instanceOf: VerifierRefusal,
  })
  t.is(wrong?.refusal.code, 'ERR_IDENTITY_GRANT')
  const acts = (await served.admin.listAudit()).map(({ action }) => action)
  t.deepEqual([...new Set(acts)].sort(), [
    'attest',
    'identity.issue',
    'identity.put',
    'identity.remove',
    'reference-value.put',
  ])
})

test('openssl reads our request and finds its signature right, and we read one of openssl', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-csr-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const input = await requestFor(await createPodKey(), ['web.shop.example', 'web'])
  const read = execFileSync('openssl', ['req', '-inform', 'der', '-verify', '-noout', '-text'], {
    input,
    encoding: 'utf8',
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  t.regex(read, /DNS:web\.shop\.example, DNS:web\n/)
  t.regex(read, /ASN1 OID: prime256v1/)
  const path = join(directory, 'theirs.der')
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-keyout', join(directory, 'key'), '-nodes']
  const subject = ['-subj', '/CN=anything', '-addext', 'subjectAltName=DNS:db.shop.example']
  execFileSync('openssl', ['req', '-new', ...kind, ...subject, '-outform', 'der', '-out', path], { stdio: 'pipe' })
  const theirs = parseCertificateRequest(readFileSync(path))
  t.deepEqual(theirs.names, ['db.shop.example'])
  t.notThrows(() => verifyCertificateRequest(theirs))
})
