import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import { create } from '@bufbuild/protobuf'
import test from 'ava'
import { parseCertificateRequest, verifyCertificateRequest } from '#attestation/x509/certificate-request'
import { ContainerFactory } from '#guest/agent/container-factory'
import { Containers } from '#guest/agent/containers'
import { EventLog } from '#guest/agent/events'
import { ImageMounts } from '#guest/agent/image-mounts'
import type { ImageMeasurement } from '#guest/agent/measurement'
import type { CertificateSource } from '#guest/agent/pod-identity'
import { PodVolumes } from '#guest/agent/pod-volumes'
import { SharedProcesses } from '#guest/agent/shared-processes'
import { PolicyEngine } from '#policies/engine'
import { parseWorkloadPolicy } from '#policies/workload'
import { CreateContainerRequestSchema, EventKind, ExecProcessRequestSchema } from '#protocol/gen/agent_pb'
import { pulledImage } from './container-parts.ts'
import { FakePlatform } from './fake-platform.ts'
import { streamPair, textOf } from './stream-pair.ts'

const IMAGE = `registry.test/app@sha256:${'a'.repeat(64)}`
const TOKENED = `registry.test/app@sha256:${'d'.repeat(64)}`
const POLICY = `
apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: app
    image: ${IMAGE}
    user: "33"
    max: 3
    logs: allow
    stdin: true
    terminal: true
    exec: [[/bin/ls]]
    mounts: [{ kind: scratch, path: /data }]
  - name: secretive
    image: ${IMAGE}
    user: "0"
    secrets: [{ resource: default/key/tls, path: /run/key.pem, mode: "0440", uid: 33, gid: 34 }]
  - name: tokened
    image: ${TOKENED}
    user: "0"
    env: { TOKEN: { secret: default/key/token } }
  - name: speaking
    image: ${IMAGE}
    user: "0"
    terminationMessage: /dev/termination-log
  - name: sealing
    image: registry.test/app@sha256:${'e'.repeat(64)}
    user: "0"
    env: { TOKEN: { sealed: default/sealing/key } }
    secrets: [{ sealed: "SEALED", key: default/sealing/key, path: /run/file }]
  - name: named
    image: registry.test/app@sha256:${'f'.repeat(64)}
    user: "0"
    identity: { path: /run/identity, names: [web.shop.example], uid: 33 }
`

const SEALING = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const SEALING_KEY = 'default/sealing/key'

/** A pointer to a resource of the verifier, sealed as Confidential Containers seal it. */
function sealed(resource: string): string {
  const encoded = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const payload = {
    version: '0.1.0',
    type: 'vault',
    provider: 'kbs',
    name: `kbs:///${resource}`,
    provider_settings: {},
  }
  const input = `${encoded({ alg: 'ES256', kid: `kbs:///${SEALING_KEY}` })}.${encoded(payload)}`
  const signature = sign('sha256', Buffer.from(input), { key: SEALING.privateKey, dsaEncoding: 'ieee-p1363' })
  return `sealed.${input}.${signature.toString('base64url')}`
}

function setUp(
  options: { secrets?: Record<string, string>; measurement?: ImageMeasurement; certificate?: CertificateSource } = {},
) {
  const platform = new FakePlatform()
  const policy = new PolicyEngine(parseWorkloadPolicy(POLICY.replace('SEALED', sealed('default/key/file'))))
  const events = new EventLog(() => platform.clock.monotonicMs())
  let pulls = 0
  const released: Uint8Array[] = []
  const factory = new ContainerFactory({
    platform,
    pull: async () => {
      pulls++
      return { image: pulledImage(), release: () => undefined }
    },
    measurement: options.measurement ?? { admit: async () => true },
    resource:
      options.secrets === undefined
        ? undefined
        : async (path) => {
            const bytes = new TextEncoder().encode(options.secrets?.[path] ?? '')
            released.push(bytes)
            return bytes
          },
    certificate: options.certificate,
    images: new ImageMounts(platform, '/l'),
    scratch: '/scratch',
    volumes: new PodVolumes({ platform, policy, scratch: '/scratch', resource: undefined }),
    hostname: 'sandbox',
    sysctls: {},
    shared: new SharedProcesses(platform),
  })
  const containers = new Containers({ platform, policy, factory, events })
  const request = (change: object = {}) =>
    create(CreateContainerRequestSchema, { containerId: 'one', name: 'app', image: IMAGE, ...change })
  const kinds = async () => {
    const seen: EventKind[] = []
    const abort = new AbortController()
    setImmediate(() => abort.abort())
    for await (const { kind } of events.watch(0n, abort.signal)) if (kind !== undefined) seen.push(kind)
    return seen
  }
  return { platform, policy, containers, request, kinds, released, pulls: () => pulls }
}

test('a container is created, started, waited for and deleted, and leaves nothing mounted', async (t) => {
  const { platform, containers, request, kinds } = setUp()
  const container = await containers.create(request())
  t.is(container.state.status, 'created')
  await containers.start('one')
  t.is(container.state.status, 'running')
  const process = platform.processesById.get('c1')
  process?.end(3)
  t.deepEqual(await container.process('').exited, { code: 3, atMs: 42, oomKilled: false })
  t.is((await containers.delete('one')).code, 3)
  t.deepEqual(containers.list(), [])
  const count = (word: string) => platform.log.filter((step) => step.startsWith(word)).length
  t.is(count('mount'), count('unmount'))
  t.is(count('loop'), count('detach'))
  t.is(count('verity'), count('close'))
  t.deepEqual(await kinds(), [EventKind.MEASURED, EventKind.CREATED, EventKind.STARTED, EventKind.EXITED])
})

test('one image of two containers is mounted once', async (t) => {
  const { platform, containers, request } = setUp()
  await Promise.all([containers.create(request()), containers.create(request({ containerId: 'two' }))])
  t.is(platform.log.filter((step) => step.startsWith('mount erofs')).length, 1)
  t.is(platform.log.filter((step) => step.startsWith('mount overlay')).length, 2)
  await containers.delete('one')
  t.is(platform.log.filter((step) => step.startsWith('close')).length, 0)
  await containers.delete('two')
  t.is(platform.log.filter((step) => step.startsWith('close')).length, 3)
})

for (const step of ['loop', 'verity', 'mount erofs', 'mount overlay', 'write', 'create']) {
  test(`when "${step}" fails, everything before it is undone and the name is free again`, async (t) => {
    const { platform, containers, request } = setUp()
    platform.failing = step
    await t.throwsAsync(containers.create(request()), { message: /failed/ })
    const count = (word: string) => platform.log.filter((entry) => entry.startsWith(word)).length
    t.is(count('mount'), count('unmount'))
    t.is(count('loop'), count('detach'))
    t.is(count('verity'), count('close'))
    platform.failing = undefined
    await t.notThrowsAsync(containers.create(request()))
  })
}

test('every request at the wrong time is refused with the state', async (t) => {
  const { platform, containers, request } = setUp()
  const exec = () =>
    containers.exec(create(ExecProcessRequestSchema, { containerId: 'one', execId: 'e', args: ['/bin/ls'] }))
  await t.throwsAsync(containers.start('one'), { code: 'ERR_CONTAINER_UNKNOWN' })
  await t.throwsAsync(containers.delete('one'), { code: 'ERR_CONTAINER_UNKNOWN' })
  await containers.create(request())
  await t.throwsAsync(exec(), { code: 'ERR_CONTAINER_STATE' })
  await containers.start('one')
  await t.throwsAsync(containers.start('one'), { code: 'ERR_CONTAINER_STATE' })
  await t.throwsAsync(containers.delete('one'), { code: 'ERR_CONTAINER_STATE' })
  await exec()
  await t.throwsAsync(exec(), { code: 'ERR_PROCESS_EXISTS' })
  t.throws(() => containers.get('one').forget('e'), { code: 'ERR_CONTAINER_STATE' })
  platform.execs[0]?.end(0)
  await containers.get('one').process('e').exited
  t.is(containers.get('one').forget('e').code, 0)
  t.throws(() => containers.get('one').process('e'), { code: 'ERR_PROCESS_UNKNOWN' })
  platform.processesById.get('c1')?.end(0)
  await containers.get('one').process('').exited
  await t.throwsAsync(exec(), { code: 'ERR_CONTAINER_STATE' })
  await t.throwsAsync(containers.start('one'), { code: 'ERR_CONTAINER_STATE' })
  const term = { signal: 15, all: false }
  await t.throwsAsync(containers.signal('one', '', term), { code: 'ERR_PROCESS_ENDED' })
})

test('what the policy does not admit is not even pulled', async (t) => {
  const { containers, request, pulls } = setUp()
  const refused: readonly object[] = [
    { image: `registry.test/app@sha256:${'b'.repeat(64)}` },
    { name: 'other' },
    { args: { values: ['/bin/sh'] } },
    { env: ['MODE=asked'] },
    { user: 'root' },
    { workingDir: '/tmp' },
    { mounts: [{ kind: 'scratch', destination: '/etc' }] },
    { mounts: [{ kind: 'bind', destination: '/data' }] },
  ]
  for (const change of refused) {
    await t.throwsAsync(containers.create(request(change)), { code: 'ERR_POLICY_DENIED' }, JSON.stringify(change))
  }
  t.is(pulls(), 0)
  await containers.create(request({ containerId: 'x', name: 'secretive' })).catch(() => undefined)
  t.is(pulls(), 1)
})

test('an image that cannot be measured does not run', async (t) => {
  const measurement: ImageMeasurement = { admit: () => Promise.reject(new Error('the verifier refused')) }
  const { platform, containers, request } = setUp({ measurement })
  await t.throwsAsync(containers.create(request()), { message: 'the verifier refused' })
  t.deepEqual(platform.log, [])
})

test('secrets are files of the guest, bound read-only over their paths, and are gone with the container', async (t) => {
  const { platform, containers, request } = setUp({ secrets: { 'default/key/tls': 'PRIVATE' } })
  await containers.create(request({ name: 'secretive' }))
  const path = '/run/caisson/containers/c1/secret-0'
  t.is(new TextDecoder().decode(platform.content.get(path)), 'PRIVATE')
  const spec = JSON.parse(new TextDecoder().decode(platform.content.get('/run/caisson/containers/c1/config.json')))
  const mount = spec.mounts.find((entry: { destination: string }) => entry.destination === '/run/key.pem')
  t.is(mount.source, path)
  t.true(mount.options.includes('ro'))
  await containers.delete('one')
  t.false(platform.content.has(path))
})

test('a secret is wiped from the agent’s memory once it is a file, and when it could not become one', async (t) => {
  for (const failing of [undefined, 'write /run/caisson/containers/c1/secret-0']) {
    const { platform, containers, request, released } = setUp({ secrets: { 'default/key/tls': 'PRIVATE' } })
    platform.failing = failing
    const made = containers.create(request({ name: 'secretive' }))
    await (failing === undefined ? made : t.throwsAsync(made))
    t.deepEqual(released, [new Uint8Array('PRIVATE'.length)])
  }
})

const NAMED = { name: 'named', image: `registry.test/app@sha256:${'f'.repeat(64)}` }
const IDENTITY = '/run/caisson/containers/c1/identity'
const HOUR_MS = 3_600_000

/** A verifier that numbers its certificates; from `failing` on it does not answer. */
function certificates(platform: () => FakePlatform) {
  const asked: Uint8Array[] = []
  const control = { failing: false, attempts: 0, asked }
  const certificate: CertificateSource = async (request) => {
    control.attempts++
    if (control.failing) throw new Error('no answer')
    asked.push(request)
    const expiresAt = new Date(platform().clock.now().getTime() + HOUR_MS)
    return { certificatePem: `certificate ${asked.length}`, caPem: `CA ${asked.length}`, expiresAt }
  }
  return { control, certificate }
}

test('the key of a certificate is made in the guest, and key, certificate and CAs are mounted read-only', async (t) => {
  const { control, certificate } = certificates(() => served.platform)
  const served = setUp({ certificate })
  const { platform, containers, request } = served
  await containers.create(request(NAMED))
  const file = (name: string) => Buffer.from(platform.content.get(`${IDENTITY}/${name}`) ?? []).toString()
  t.is(file('cert.pem'), 'certificate 1')
  t.is(file('ca.pem'), 'CA 1')
  const asked = parseCertificateRequest(control.asked[0] ?? new Uint8Array())
  t.deepEqual(asked.names, ['web.shop.example'])
  t.notThrows(() => verifyCertificateRequest(asked))
  const own = createPublicKey(createPrivateKey(file('key.pem'))).export({ type: 'spki', format: 'der' })
  t.deepEqual(Buffer.from(asked.publicKey), own)
  const spec = JSON.parse(new TextDecoder().decode(platform.content.get('/run/caisson/containers/c1/config.json')))
  const mount = spec.mounts.find((entry: { destination: string }) => entry.destination === '/run/identity')
  t.is(mount.source, IDENTITY)
  t.true(mount.options.includes('ro'))
  await containers.delete('one')
  t.is(file('key.pem'), '')
})

test('a certificate is renewed at half of its time, more often as its end comes near, and no more once its container is gone', async (t) => {
  const { control, certificate } = certificates(() => served.platform)
  const served = setUp({ certificate })
  const { platform, containers, request } = served
  await containers.create(request(NAMED))
  const file = (name: string) => Buffer.from(platform.content.get(`${IDENTITY}/${name}`) ?? []).toString()
  const key = file('key.pem')
  /** Keys and files take as long as they take: whoever renews is done with one attempt when it waits for the next. */
  const pass = async (ms: number) => {
    const attempts = control.attempts
    platform.clock.advance(ms)
    while (platform.clock.sleepers === 0) await new Promise(setImmediate)
    return control.attempts - attempts
  }
  t.is(await pass(HOUR_MS / 2), 1)
  t.is(file('cert.pem'), 'certificate 2')
  t.is(file('ca.pem'), 'CA 2')
  t.is(file('key.pem'), key)
  control.failing = true
  t.is(await pass(HOUR_MS / 2), 1)
  t.is(await pass(HOUR_MS / 4), 1)
  t.is(await pass(HOUR_MS / 8), 1)
  t.is(file('cert.pem'), 'certificate 2')
  control.failing = false
  t.is(await pass(HOUR_MS / 16), 1)
  t.is(file('cert.pem'), 'certificate 3')
  const { attempts } = control
  await containers.delete('one')
  // Its end waited for that of the renewal: nothing is left that could make an attempt.
  platform.clock.advance(HOUR_MS)
  for (let turn = 0; turn < 100; turn++) await new Promise(setImmediate)
  t.is(control.attempts, attempts)
})

test('a container that needs a certificate does not start where nobody can issue one', async (t) => {
  const { platform, containers, request } = setUp()
  await t.throwsAsync(containers.create(request(NAMED)), { code: 'ERR_IDENTITY_UNAVAILABLE' })
  t.false(platform.log.some((step) => step.startsWith('create')))
  const refused = setUp({ certificate: () => Promise.reject(new Error('the name is not granted')) })
  await t.throwsAsync(refused.containers.create(refused.request(NAMED)), { message: 'the name is not granted' })
  t.false(refused.platform.log.some((step) => step.startsWith('create')))
})

test('a secret of the environment is fetched by the guest and set in the process, and text it must be', async (t) => {
  const { platform, containers, request } = setUp({ secrets: { 'default/key/token': 'T0K=EN' } })
  await containers.create(request({ name: 'tokened', image: TOKENED }))
  const spec: { process: { env: string[] } } = JSON.parse(
    new TextDecoder().decode(platform.content.get('/run/caisson/containers/c1/config.json')),
  )
  t.true(spec.process.env.includes('TOKEN=T0K=EN'))
  const binary = setUp({ secrets: { 'default/key/token': 'a\0b' } })
  const refused = binary.containers.create(binary.request({ name: 'tokened', image: TOKENED }))
  await t.throwsAsync(refused, { code: 'ERR_SECRET_UNAVAILABLE' })
})

test('sealed secrets are unsealed into a variable and a file, and nothing of their text is left', async (t) => {
  const secrets = {
    [SEALING_KEY]: JSON.stringify(SEALING.publicKey.export({ format: 'jwk' })),
    'default/key/token': 'T0KEN',
    'default/key/file': 'FILE',
  }
  const { platform, containers, request } = setUp({ secrets })
  const image = 'registry.test/app'
  await containers.create(request({ name: 'sealing', image, env: [`TOKEN=${sealed('default/key/token')}`] }))
  const config = new TextDecoder().decode(platform.content.get('/run/caisson/containers/c1/config.json'))
  const spec = JSON.parse(config) as { process: { env: string[] } }
  t.true(spec.process.env.includes('TOKEN=T0KEN'))
  t.false(config.includes('sealed.'))
  t.is(new TextDecoder().decode(platform.content.get('/run/caisson/containers/c1/secret-0')), 'FILE')
})

test('a sealed secret whose key the verifier has replaced starts nothing', async (t) => {
  const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' })
  const { platform, containers, request } = setUp({ secrets: { [SEALING_KEY]: JSON.stringify(other) } })
  const refused = containers.create(request({ name: 'sealing', image: 'registry.test/app' }))
  await t.throwsAsync(refused, { code: 'ERR_SEALED_SECRET_SIGNATURE' })
  t.false(platform.log.some((step) => step.startsWith('create')))
})

test('without a verifier there are no secrets, and no container that needs one', async (t) => {
  const { containers, request } = setUp()
  await t.throwsAsync(containers.create(request({ name: 'secretive' })), { code: 'ERR_SECRET_UNAVAILABLE' })
})

test('output, input and terminal of a process go through its streams', async (t) => {
  const { platform, containers, request } = setUp()
  await containers.create(request({ stdin: true }))
  await containers.start('one')
  const process = platform.processesById.get('c1')
  const [guest, host] = streamPair()
  const tracked = containers.get('one').process('')
  const feeding = tracked.process.takeInput(guest)
  await host.write(new TextEncoder().encode('typed'))
  await host.end()
  await feeding
  t.is(process === undefined ? '' : await textOf(process.inside.stdin), 'typed')

  await process?.inside.stdout.write(new TextEncoder().encode('said'))
  process?.end(0)
  const [out, reader] = streamPair()
  await tracked.process.sendOutput(out, ['stdout'], true)
  t.is(await textOf(reader), 'said')
})

test('only one stream at a time is the input of a process', async (t) => {
  const { containers, request } = setUp()
  await containers.create(request({ stdin: true }))
  const { process } = containers.get('one').process('')
  const [first, host] = streamPair()
  const feeding = process.takeInput(first)
  await t.throwsAsync(process.takeInput(streamPair()[0]), { code: 'ERR_STREAM_TAKEN' })
  await host.end()
  await feeding
})

test('a second stream to a terminal is refused, and the first goes on', async (t) => {
  const { platform, containers, request } = setUp()
  await containers.create(request({ terminal: true, stdin: true }))
  await containers.start('one')
  const { process } = containers.get('one').process('')
  const [first, host] = streamPair()
  const joined = process.joinTerminal(first)
  await t.throwsAsync(process.joinTerminal(streamPair()[0]), { code: 'ERR_STREAM_TAKEN' })
  // A rejection that nobody held would have ended the agent, and with it the machine, by now.
  await new Promise((resolve) => setImmediate(resolve))
  await platform.processesById.get('c1')?.inside.stdout.write(new TextEncoder().encode('still here'))
  t.is(new TextDecoder().decode((await host.read()) ?? new Uint8Array()), 'still here')
  platform.processesById.get('c1')?.end(0)
  await host.end()
  await joined
})

test('an exit is told even when the control group goes while it is read', async (t) => {
  const { platform, containers, request } = setUp()
  await containers.create(request())
  await containers.start('one')
  const gone = Object.assign(new Error('ENODEV: no such device, read'), { code: 'ENODEV' })
  platform.files.readIfExists = async () => {
    throw gone
  }
  platform.processesById.get('c1')?.signal(9)
  t.deepEqual(await containers.get('one').process('').exited, { code: 137, atMs: 42, oomKilled: false })
})

test('stopping everything asks first, waits, then kills', async (t) => {
  const { platform, containers, request } = setUp()
  await containers.create(request())
  await containers.start('one')
  const process = platform.processesById.get('c1')
  const stopped = containers.stopAll(10_000, 5_000)
  t.deepEqual(process?.signals, [3])
  platform.clock.advance(10_000)
  await new Promise((resolve) => setImmediate(resolve))
  t.deepEqual(process?.signals, [3, 9])
  await stopped
  t.deepEqual(containers.list(), [])
})

test('last words leave the guest only where the policy says so, and their end only', async (t) => {
  const { platform, containers, request } = setUp()
  const silent = await containers.create(request())
  const speaking = await containers.create(request({ containerId: 'two', name: 'speaking' }))
  t.true(platform.log.includes('mount tmpfs /run/caisson/containers/c2/message'))
  platform.content.set('/run/caisson/containers/c1/message/text', new Uint8Array(3))
  platform.content.set(
    '/run/caisson/containers/c2/message/text',
    new Uint8Array(5000).map((_, index) => index % 256),
  )
  t.deepEqual(await silent.terminationMessage(), new Uint8Array())
  const told = await speaking.terminationMessage()
  t.deepEqual(
    told,
    new Uint8Array(4096).map((_, index) => (index + 5000 - 4096) % 256),
  )
})
