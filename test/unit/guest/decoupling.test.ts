/**
 * The ways in which what was admitted and what runs come apart elsewhere, each tried through the real engine and factory:
 * the host's word against the verified image and the policy. The image's own chain of digests is tried where registries
 * are (test/component/image), the token where the verifier is.
 */
import { create, ScalarType } from '@bufbuild/protobuf'
import test from 'ava'
import { ContainerFactory } from '#guest/agent/container-factory'
import { Containers } from '#guest/agent/containers'
import { EventLog } from '#guest/agent/events'
import { ImageMounts } from '#guest/agent/image-mounts'
import type { RequiredSigners } from '#guest/agent/image-source'
import { PodVolumes } from '#guest/agent/pod-volumes'
import { SharedProcesses } from '#guest/agent/shared-processes'
import { PolicyEngine } from '#policies/engine'
import { parseWorkloadPolicy } from '#policies/workload'
import {
  Agent,
  type CreateContainerRequest,
  CreateContainerRequestSchema,
  type ExecProcessRequest,
  ExecProcessRequestSchema,
  ResourcesSchema,
} from '#protocol/gen/agent_pb'
import type { AdmittedImage } from '#protocol/tpm-messages'
import { pulledImage } from './container-parts.ts'
import { FakePlatform } from './fake-platform.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`
const OTHER = `sha256:${'b'.repeat(64)}`
const POLICY = `
apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - { name: setup, image: "registry.test/setup@${DIGEST}", role: init }
  - name: app
    image: registry.test/app@${DIGEST}
    requires: [setup]
    env: { TOKEN: { secret: default/app/token } }
    secrets: [{ resource: default/app/key, path: /run/key }]
    resources: { memory: { max: 64Mi }, pids: { max: 50 } }
    exec: [[check]]
  - { name: signed, image: registry.test/signed, signedBy: [{ key: default/keys/release }] }
  - { name: other, image: "registry.test/other@${OTHER}" }
`

function setUp() {
  const platform = new FakePlatform()
  const text = (value: string) => new TextEncoder().encode(value)
  platform.content.set('image:/etc/passwd', text('root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n'))
  platform.content.set('image:/etc/group', text('web:x:34:\nlogs:x:40:web\n'))
  const pulled: string[] = []
  const released: string[] = []
  const signers: RequiredSigners[] = []
  const measured: AdmittedImage[] = []
  const policy = new PolicyEngine(parseWorkloadPolicy(POLICY))
  const factory = new ContainerFactory({
    platform,
    pull: async (reference, _onProgress, required) => {
      pulled.push(reference)
      if (required !== undefined) signers.push(required)
      return { image: pulledImage(), release: () => undefined }
    },
    measurement: {
      admit: async (image) => {
        measured.push(image)
        return true
      },
    },
    resource: async (path) => {
      released.push(path)
      return text('SECRET')
    },
    certificate: undefined,
    images: new ImageMounts(platform, '/l'),
    scratch: '/scratch',
    volumes: new PodVolumes({ platform, policy, scratch: '/scratch', resource: undefined }),
    hostname: 'sandbox',
    sysctls: {},
    shared: new SharedProcesses(platform),
  })
  const events = new EventLog(() => platform.clock.monotonicMs())
  const containers = new Containers({ platform, policy, factory, events })
  const ask = (change: object) =>
    containers.create(
      create(CreateContainerRequestSchema, { containerId: 'c', resources: { memoryLimitBytes: 2n ** 20n }, ...change }),
    )
  const setup = async () => {
    await ask({ containerId: 'setup', name: 'setup', image: 'registry.test/setup' })
    await containers.start('setup')
    platform.processesById.get('c1')?.end(0)
    await containers.get('setup').process('').exited
  }
  const spec = (id: string) =>
    JSON.parse(new TextDecoder().decode(platform.content.get(`/run/caisson/containers/${id}/config.json`)))
  return { platform, containers, ask, setup, spec, pulled, released, measured, signers }
}

const APP = { name: 'app', image: 'registry.test/app:latest' }
const LIMITS = { memoryLimitBytes: 2n ** 20n, pidsLimit: 10n }

/** What the host names instead of what the policy admits. */
const SUBSTITUTES: readonly [string, object][] = [
  ['another digest of the same repository', { image: `registry.test/app@${OTHER}` }],
  ['the admitted digest in another repository', { image: `registry.test/evil@${DIGEST}` }],
  ['the admitted name at another registry', { image: 'evil.test/app:latest' }],
  ['the image of another rule under this name', { image: `registry.test/other@${OTHER}` }],
  ['this image under the name of another rule', { name: 'other' }],
  ['an image that no rule names, without a name', { name: '', image: `registry.test/evil@${DIGEST}` }],
]
for (const [what, change] of SUBSTITUTES) {
  test(`${what} is denied, and nothing is pulled, measured or released`, async (t) => {
    const { ask, setup, pulled, released, measured } = setUp()
    await setup()
    const before = pulled.length
    await t.throwsAsync(ask({ ...APP, resources: LIMITS, ...change }), { code: 'ERR_POLICY_DENIED' })
    t.deepEqual([pulled.length - before, released, measured.length], [0, [], 1])
  })
}

test('a tag of the host decides nothing: the digest of the policy is pulled, measured and run', async (t) => {
  const { ask, setup, pulled, measured, spec, platform } = setUp()
  await setup()
  await ask({ ...APP, resources: LIMITS })
  t.is(pulled.at(-1), `registry.test/app@${DIGEST}`)
  const image = pulledImage()
  t.deepEqual(measured.at(-1), {
    container: 'app',
    manifest: image.manifestDigest,
    config: image.configDigest,
    diffIds: image.config.diffIds,
  })
  const { root, process } = spec('c2')
  t.is(root.path, '/run/caisson/containers/c2/rootfs')
  t.true(platform.log.includes('mount overlay /run/caisson/containers/c2/rootfs'), 'of verified layers alone')
  t.deepEqual(process.args, [...image.config.entrypoint, ...image.config.cmd])
  t.is(process.cwd, image.config.workingDir)
  t.deepEqual(process.env, ['PATH=/bin', 'HOSTNAME=sandbox', 'HOME=/', 'MODE=image', 'TOKEN=SECRET'])
})

test('where signers are named in place of a digest, they are demanded, and what was pulled is measured', async (t) => {
  const { ask, pulled, measured, signers } = setUp()
  await ask({ name: 'signed', image: 'registry.test/signed:3' })
  t.deepEqual(pulled, ['registry.test/signed:3'])
  const required = {
    place: 'containers.signed.signedBy',
    signers: [{ kind: 'key', resource: 'default/keys/release' } as const],
  }
  t.deepEqual(signers, [required])
  const { manifestDigest, configDigest } = pulledImage()
  const [what] = measured
  t.deepEqual([what?.container, what?.manifest, what?.config], ['signed', manifestDigest, configDigest])
  const evil = ask({ containerId: 'd', name: 'signed', image: 'registry.test/evil:3' })
  await t.throwsAsync(evil, { code: 'ERR_POLICY_DENIED' })
  t.is(pulled.length, 1)
})

test('user and groups are those that the verified image names, looked up in its own files', async (t) => {
  const { ask, setup, spec } = setUp()
  await setup()
  await ask({ ...APP, resources: LIMITS })
  t.deepEqual(spec('c2').process.user, { uid: 33, gid: 34, additionalGids: [40] })
})

test('a container that is omitted, late, doubled or run again gets those that need it nothing', async (t) => {
  const { ask, setup, containers, released, platform } = setUp()
  const app = { ...APP, resources: LIMITS }
  await t.throwsAsync(ask(app), { code: 'ERR_POLICY_DENIED', message: /containers\.app\.requires/ })
  await setup()
  const again = { containerId: 'again', name: 'setup', image: 'registry.test/setup' }
  await containers.delete('setup')
  await t.throwsAsync(ask(again), { code: 'ERR_POLICY_DENIED', message: /containers\.setup\.role/ })
  t.deepEqual(released, [])
  await ask(app)
  t.deepEqual([...released].sort(), ['default/app/key', 'default/app/token'])
  await t.throwsAsync(ask({ ...app, containerId: 'two' }), {
    code: 'ERR_POLICY_DENIED',
    message: /containers\.app\.max/,
  })
  t.is(platform.log.filter((step) => step.startsWith('create ')).length, 2)
})

/** Every field that a host fills in to have a container or a command: what else than the policy's gets it a denial. */
type Change = object | 'names the container to the host'
/** A field that a message gains has no row, and does not compile. */
type Asked<Message> = Readonly<Record<Exclude<keyof Message, '$typeName' | '$unknown'>, Change>>
const CREATE: Asked<CreateContainerRequest> = {
  containerId: 'names the container to the host',
  name: { name: 'other' },
  image: { image: `registry.test/app@${OTHER}` },
  args: { args: { values: ['/bin/sh'] } },
  env: { env: ['LD_PRELOAD=/x'] },
  user: { user: '0:0' },
  workingDir: { workingDir: '/tmp' },
  mounts: { mounts: [{ kind: 'scratch', destination: '/bin' }] },
  groups: { groups: [0] },
  devices: { devices: [{ path: '/dev/vda', disk: 'block-0' }] },
  terminal: { terminal: true },
  stdin: { stdin: true },
  sharesProcesses: { sharesProcesses: true },
  resources: { resources: { memoryLimitBytes: 2n ** 30n } },
}
const EXEC: Asked<ExecProcessRequest> = {
  containerId: 'names the container to the host',
  execId: 'names the container to the host',
  args: { args: ['sh'] },
  env: { env: ['A=b'] },
  user: { user: '0' },
  workingDir: { workingDir: '/tmp' },
  terminal: { terminal: true },
  stdin: { stdin: true },
}

test('a request for a container has no word for a root, a storage or a hook: each field is the policy’s to decide', async (t) => {
  t.deepEqual(CreateContainerRequestSchema.fields.map(({ localName }) => localName).sort(), Object.keys(CREATE).sort())
  const { ask, setup, pulled } = setUp()
  await setup()
  for (const [field, change] of Object.entries(CREATE)) {
    if (typeof change === 'string') continue
    await t.throwsAsync(ask({ ...APP, resources: LIMITS, ...change }), { code: 'ERR_POLICY_DENIED' }, field)
  }
  t.is(pulled.length, 1)
})

test('a request for a command has no word for capabilities, labels or limits: each field is the policy’s to decide', async (t) => {
  t.deepEqual(ExecProcessRequestSchema.fields.map(({ localName }) => localName).sort(), Object.keys(EXEC).sort())
  const { ask, setup, containers } = setUp()
  await setup()
  await ask({ ...APP, resources: LIMITS })
  await containers.start('c')
  const exec = (change: object) =>
    containers.exec(create(ExecProcessRequestSchema, { containerId: 'c', execId: 'e', args: ['check'], ...change }))
  for (const [field, change] of Object.entries(EXEC)) {
    if (typeof change === 'string') continue
    await t.throwsAsync(exec(change), { code: 'ERR_POLICY_DENIED' }, field)
  }
  await t.notThrowsAsync(exec({}))
})

test('limits that the policy bounds cannot be changed beyond it once the container is there', async (t) => {
  const { ask, setup, containers, platform } = setUp()
  await setup()
  await ask({ ...APP, resources: LIMITS })
  const update = (change: object) => containers.update('c', create(ResourcesSchema, change))
  await t.throwsAsync(update({ memoryLimitBytes: 2n ** 27n }), {
    code: 'ERR_POLICY_DENIED',
    message: /containers\.app\.resources\.memory/,
  })
  await t.throwsAsync(update({ pidsLimit: 51n }), { code: 'ERR_POLICY_DENIED' })
  t.false(platform.log.some((step) => /memory\.max|pids\.max/.test(step)))
  await update({ memoryLimitBytes: 2n ** 26n, cpuShares: 100n })
  t.true(platform.log.some((step) => step.endsWith(`memory.max ${2 ** 26}`)))
})

test('of the requests of the host one carries contents, which the policy judges, and none names a path of the guest', (t) => {
  const carriers = Agent.methods.flatMap(({ name, input }) =>
    input.fields.flatMap((field) =>
      (field.fieldKind === 'scalar' && field.scalar === ScalarType.BYTES) ||
      /(^|_)(path|file|source|content|data)s?$/.test(field.name)
        ? [`${name}.${field.name}`]
        : [],
    ),
  )
  // Files of a volume that the policy declares by kind, in a place of the guest's choice.
  t.deepEqual(carriers, ['SetVolume.files'])
})
