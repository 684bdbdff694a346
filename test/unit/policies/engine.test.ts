import test from 'ava'
import { PolicyEngine } from '#policies/engine'
import type { ContainerRequest } from '#policies/requests'
import { parseWorkloadPolicy } from '#policies/workload'
import { DeniedError } from '#protocol/errors'

const DIGEST = `sha256:${'ab'.repeat(32)}`
const OTHER = `sha256:${'cd'.repeat(32)}`
const POLICY = `
apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: web
    image: registry.test:5000/nginx@${DIGEST}
    env: { MODE: [debug, production] }
    mounts:
      - { kind: scratch, path: /var/cache, maxBytes: 8192 }
      - { kind: tmpfs, path: /tmp, required: false }
      - { kind: scratch, path: /srv/static, readOnly: true, required: false }
    ports: [8443]
    logs: allow
    exec: [["nginx", "-t"]]
    signals: [1]
  - name: job
    image: registry.test:5000/job@${OTHER}
    args: ["run", "--once"]
    max: 2
`

function request(changes: Partial<ContainerRequest> = {}): ContainerRequest {
  return {
    containerId: 'c1',
    name: '',
    image: `registry.test:5000/nginx@${DIGEST}`,
    args: undefined,
    env: [],
    user: '',
    workingDir: '',
    mounts: [],
    terminal: false,
    stdin: false,
    sharesProcesses: false,
    resources: { memoryBytes: 0, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 0 },
    ...changes,
  }
}

function engine(): PolicyEngine {
  return new PolicyEngine(parseWorkloadPolicy(POLICY))
}

/** The field that a denial names, or 'admitted'. */
function verdict(action: () => unknown): string {
  try {
    action()
    return 'admitted'
  } catch (error) {
    if (error instanceof DeniedError) return error.field
    throw error
  }
}

test('an admitted container is pulled by the digest of the policy, whatever tag the host wrote', (t) => {
  const admitted = engine().admitContainer(request({ image: 'registry.test:5000/nginx:latest' }))
  t.is(admitted.reference, `registry.test:5000/nginx@${DIGEST}`)
  t.is(admitted.rule.name, 'web')
})

test('where the rule names signers, the version is the host’s choice, and the repository is not', (t) => {
  const signed = POLICY.replace(`nginx@${DIGEST}`, 'nginx\n    signedBy: [{ key: default/keys/release }]')
  const reference = (image: string) => {
    const { reference: pulled } = new PolicyEngine(parseWorkloadPolicy(signed)).admitContainer(request({ image }))
    return pulled
  }
  t.is(reference('registry.test:5000/nginx:2'), 'registry.test:5000/nginx:2')
  t.is(reference('registry.test:5000/nginx'), 'registry.test:5000/nginx:latest')
  t.is(reference(`registry.test:5000/nginx:2@${OTHER}`), `registry.test:5000/nginx@${OTHER}`)
  for (const image of ['registry.test:5000/other:2', 'evil.test/nginx:2', 'registry.test:5000/nginx:a b']) {
    t.is(
      verdict(() => reference(image)),
      'containers.image',
      image,
    )
  }
  t.is(
    verdict(() => reference('registry.test:5000/nginx@sha256:abc')),
    'containers.image',
  )
})

test('a required mount is there even when the host does not ask for it', (t) => {
  t.deepEqual(
    engine()
      .admitContainer(request())
      .mounts.map((mount) => mount.path),
    ['/var/cache'],
  )
})

const DENIALS: readonly [string, Partial<ContainerRequest>, string][] = [
  ['another digest of an admitted repository', { image: `registry.test:5000/nginx@${OTHER}` }, 'containers.image'],
  ['an image of another registry', { image: `evil.test/nginx@${DIGEST}` }, 'containers.image'],
  [
    'an admitted name with another image',
    { name: 'web', image: `registry.test:5000/job@${OTHER}` },
    'containers.web.image',
  ],
  ['a name that the policy does not have', { name: 'db' }, 'containers.name'],
  ['a command where only the image’s own is allowed', { args: ['sh'] }, 'containers.web.args'],
  ['a variable that the policy does not name', { env: ['LD_PRELOAD=/x.so'] }, 'containers.web.env.LD_PRELOAD'],
  ['a value outside the allowed ones', { env: ['MODE=test'] }, 'containers.web.env.MODE'],
  ['the same variable twice', { env: ['MODE=debug', 'MODE=debug'] }, 'containers.web.env.MODE'],
  ['another user', { user: '0:0' }, 'containers.web.user'],
  ['another working directory', { workingDir: '/' }, 'containers.web.workingDir'],
  ['a terminal', { terminal: true }, 'containers.web.terminal'],
  ['standard input', { stdin: true }, 'containers.web.stdin'],
  ['a mount over a place the policy does not name', { mounts: [mount('scratch', '/etc')] }, 'containers.web.mounts'],
  ['a mount of another kind', { mounts: [mount('tmpfs', '/var/cache')] }, 'containers.web.mounts'],
  [
    'a writable mount where it must be read-only',
    { mounts: [mount('scratch', '/srv/static')] },
    'containers.web.mounts.readOnly',
  ],
  ['the same mount twice', { mounts: [mount('tmpfs', '/tmp'), mount('tmpfs', '/tmp')] }, 'containers.web.mounts'],
  ['a mount larger than allowed', { mounts: [mount('scratch', '/var/cache', 9000)] }, 'containers.web.mounts.maxBytes'],
]

function mount(kind: string, destination: string, sizeLimitBytes = 0): ContainerRequest['mounts'][number] {
  return { kind, destination, readOnly: false, sizeLimitBytes }
}

for (const [what, changes, field] of DENIALS) {
  test(`${what} is denied, naming ${field}`, (t) => {
    t.is(
      verdict(() => engine().admitContainer(request(changes))),
      field,
    )
  })
}

test('a denial says what is allowed and what was asked', (t) => {
  const error = t.throws(() => engine().admitContainer(request({ env: ['MODE=test'] })), { instanceOf: DeniedError })
  t.deepEqual([error?.code, error?.allowed, error?.asked], ['ERR_POLICY_DENIED', 'debug, production', 'test'])
})

test('a second container is denied where one is allowed, and admitted again once the first is gone', (t) => {
  const policy = engine()
  policy.admitContainer(request())
  t.is(
    verdict(() => policy.admitContainer(request({ containerId: 'c2' }))),
    'containers.web.max',
  )
  t.is(
    verdict(() => policy.admitContainer(request())),
    'container_id',
  )
  policy.release('c1')
  t.is(
    verdict(() => policy.admitContainer(request({ containerId: 'c2' }))),
    'admitted',
  )
})

test('an exact command is filled in when the host states none and denied when it states another', (t) => {
  const job = { image: `registry.test:5000/job@${OTHER}` }
  t.deepEqual(engine().admitContainer(request(job)).args, ['run', '--once'])
  t.is(
    verdict(() => engine().admitContainer(request({ ...job, args: ['run'] }))),
    'containers.job.args',
  )
})

test('exec is admitted word by word', (t) => {
  const policy = engine()
  policy.admitContainer(request())
  const exec = {
    containerId: 'c1',
    args: ['nginx', '-t'],
    env: [],
    user: '',
    workingDir: '',
    terminal: false,
    stdin: false,
  }
  t.is(
    verdict(() => policy.admitExec(exec)),
    'admitted',
  )
  for (const args of [['nginx'], ['nginx', '-t', '-q'], ['sh', '-c', 'nginx -t'], []]) {
    t.is(
      verdict(() => policy.admitExec({ ...exec, args })),
      'containers.web.exec',
    )
  }
  t.is(
    verdict(() => policy.admitExec({ ...exec, env: ['A=b'] })),
    'containers.web.exec.env',
  )
  t.is(
    verdict(() => policy.admitExec({ ...exec, containerId: 'c9' })),
    'container_id',
  )
})

test('exec runs as the container does: no user, directory, terminal or input of its own', (t) => {
  const policy = engine()
  policy.admitContainer(request())
  const exec = {
    containerId: 'c1',
    args: ['nginx', '-t'],
    env: [],
    user: '',
    workingDir: '',
    terminal: false,
    stdin: false,
  }
  t.notThrows(() => policy.admitExec(exec))
  for (const change of [{ user: 'root' }, { workingDir: '/etc' }, { terminal: true }, { stdin: true }]) {
    t.throws(() => policy.admitExec({ ...exec, ...change }), { code: 'ERR_POLICY_DENIED' }, JSON.stringify(change))
  }
})

test('output leaves the guest only where logs are allowed', (t) => {
  const policy = engine()
  policy.admitContainer(request())
  policy.admitContainer(request({ containerId: 'c2', image: `registry.test:5000/job@${OTHER}` }))
  t.is(
    verdict(() => policy.admitOutput('c1', false)),
    'admitted',
  )
  t.is(
    verdict(() => policy.admitOutput('c2', false)),
    'containers.job.logs',
  )
})

test('a port is reachable only while a container that opens it exists', (t) => {
  const policy = engine()
  t.is(
    verdict(() => policy.admitPort(8443)),
    'containers.*.ports',
  )
  policy.admitContainer(request())
  t.is(
    verdict(() => policy.admitPort(8443)),
    'admitted',
  )
  t.is(
    verdict(() => policy.admitPort(22)),
    'containers.*.ports',
  )
})

test('the host may end a container but send no other signal than the policy names', (t) => {
  const policy = engine()
  policy.admitContainer(request())
  const sigquit = 3
  for (const signal of [15, 9, 1, sigquit]) {
    t.is(
      verdict(() => policy.admitSignal('c1', signal, sigquit)),
      'admitted',
    )
  }
  t.is(
    verdict(() => policy.admitSignal('c1', 10, sigquit)),
    'containers.web.signals',
  )
})

const ORDERED = `
apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - { name: setup, image: "registry.test/setup@${DIGEST}", role: init }
  - { name: proxy, image: "registry.test/proxy@${DIGEST}", requires: [setup] }
  - name: app
    image: registry.test/app@${DIGEST}
    requires: [setup, proxy]
    env: { TOKEN: { secret: default/app/token } }
    resources: { memory: { max: 256Mi } }
`

test('a container waits for those it requires: init containers that ended with 0, others that run', (t) => {
  const policy = new PolicyEngine(parseWorkloadPolicy(ORDERED))
  const ask = (name: string) =>
    verdict(() => policy.admitContainer(limited({ containerId: name, image: `registry.test/${name}` })))
  t.is(ask('app'), 'containers.app.requires')
  t.is(ask('setup'), 'admitted')
  policy.started('setup')
  t.is(ask('proxy'), 'containers.proxy.requires', 'the init container still runs')
  policy.ended('setup', 1)
  t.is(ask('proxy'), 'containers.proxy.requires', 'the init container failed')
  policy.release('setup')
  t.is(ask('setup'), 'admitted')
  policy.started('setup')
  policy.ended('setup', 0)
  policy.release('setup')
  t.is(ask('proxy'), 'admitted')
  t.is(ask('app'), 'containers.app.requires', 'the proxy does not run yet')
  policy.started('proxy')
  t.is(ask('app'), 'admitted')
})

test('a container whose required one has ended is not admitted any more', (t) => {
  const policy = new PolicyEngine(
    parseWorkloadPolicy(
      ORDERED.replace('requires: [setup, proxy]', 'requires: [proxy]').replace('requires: [setup]', 'requires: []'),
    ),
  )
  const ask = (name: string) =>
    verdict(() => policy.admitContainer(limited({ containerId: name, image: `registry.test/${name}` })))
  t.is(ask('proxy'), 'admitted')
  policy.started('proxy')
  policy.ended('proxy', 0)
  t.is(ask('app'), 'containers.app.requires')
})

test('secrets of the environment are named to the guest, and denied to the host', (t) => {
  const policy = new PolicyEngine(parseWorkloadPolicy(ORDERED.replace('requires: [setup, proxy]', '')))
  const app = { image: 'registry.test/app' }
  t.is(
    verdict(() => policy.admitContainer(limited({ ...app, env: ['TOKEN=guess'] }))),
    'containers.app.env.TOKEN',
  )
  t.deepEqual([...policy.admitContainer(limited(app)).envSecrets], [['TOKEN', 'default/app/token']])
})

test('limits outside the policy’s range are denied, naming the limit', (t) => {
  const policy = new PolicyEngine(parseWorkloadPolicy(ORDERED.replace('requires: [setup, proxy]', '')))
  t.is(
    verdict(() => policy.admitContainer(request({ image: 'registry.test/app' }))),
    'containers.app.resources.memory',
  )
})

function limited(changes: Partial<ContainerRequest>): ContainerRequest {
  return request({ resources: { memoryBytes: 2 ** 28, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 0 }, ...changes })
}

const POD = `
shareProcessNamespace: true
sysctls: { net.core.somaxconn: "1024", kernel.sem: "250 32000 100 128" }
hostAliases: [{ address: 10.9.9.9, names: [db, db.test] }]
`

test('kernel settings that the host asks for are those of the policy, or denied', (t) => {
  const engine = new PolicyEngine(parseWorkloadPolicy(POLICY + POD))
  t.notThrows(() => engine.admitSysctl('net.core.somaxconn', '1024'))
  t.notThrows(() => engine.admitSysctl('kernel.sem', '250\t32000 100 128'))
  t.throws(() => engine.admitSysctl('net.core.somaxconn', '4096'), { code: 'ERR_POLICY_DENIED' })
  t.throws(() => engine.admitSysctl('kernel.msgmax', '1'), { code: 'ERR_POLICY_DENIED' })
})

test('processes are shared when the policy says so, whatever the host asks for', (t) => {
  const apart = new PolicyEngine(parseWorkloadPolicy(POLICY))
  t.throws(() => apart.admitContainer(request({ sharesProcesses: true })), { message: /shareProcessNamespace/ })
  t.is(apart.admitContainer(request()).processes, 'own')
  const together = new PolicyEngine(parseWorkloadPolicy(POLICY + POD))
  t.is(together.admitContainer(request()).processes, 'pod')
})

test('a container with a target sees the processes of exactly that one, while it runs', (t) => {
  const debug = `
  - name: debug
    image: registry.test:5000/debug@${OTHER}
    targetContainer: job
`
  const engine = new PolicyEngine(parseWorkloadPolicy(POLICY + debug))
  const job = request({ containerId: 'j', name: 'job', image: `registry.test:5000/job@${OTHER}` })
  const look = request({
    containerId: 'd',
    name: 'debug',
    image: `registry.test:5000/debug@${OTHER}`,
    sharesProcesses: true,
  })
  t.throws(() => engine.admitContainer(look), { message: /debug\.targetContainer/ })
  engine.admitContainer(job)
  t.throws(() => engine.admitContainer(look), { message: /debug\.targetContainer/ })
  engine.started('j')
  t.deepEqual(engine.admitContainer(look).processes, { containerId: 'j' })
})

const BAD_PODS: readonly string[] = [
  'sysctls: { kernel.core_pattern: "1" }',
  'sysctls: { net.core.somaxconn: "|/bin/sh" }',
  'sysctls: { net.core.somaxconn: 7 }',
  'hostAliases: [{ address: db, names: [x] }]',
  'hostAliases: [{ address: 10.0.0.1, names: ["two names"] }]',
  'hostAliases: [{ address: 10.0.0.1 }]',
]
test('settings of a pod that are none, or hold more than they say, are refused with their line', (t) => {
  for (const text of BAD_PODS) {
    t.throws(() => parseWorkloadPolicy(`${POLICY}${text}\n`), { code: 'ERR_POLICY_MALFORMED' }, text)
  }
  const chained = POLICY.replace('name: job', 'name: job\n    targetContainer: job')
  t.throws(() => parseWorkloadPolicy(chained), { code: 'ERR_POLICY_MALFORMED' })
})

test('a container with a sealed image is asked for by its placeholder, and its reference is a resource', (t) => {
  const sealed = `${POLICY}
  - name: one
    sealedImage: default/images/one
`
  const engine = new PolicyEngine(parseWorkloadPolicy(sealed))
  const asked = request({ containerId: 'o', name: 'one', image: 'caisson.dev/sealed:1' })
  t.throws(() => engine.admitContainer({ ...asked, image: `registry.test:5000/nginx@${DIGEST}` }), {
    message: /one\.image/,
  })
  t.deepEqual(engine.admitContainer(asked).reference, { resource: 'default/images/one' })
  for (const text of ['sealedImage: one', `sealedImage: default/images/one\n    image: registry.test/x@${DIGEST}`]) {
    const bad = sealed.replace('sealedImage: default/images/one', text)
    t.throws(() => parseWorkloadPolicy(bad), { code: 'ERR_POLICY_MALFORMED' })
  }
})
