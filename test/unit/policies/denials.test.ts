/** Every reason for which a policy denies a request, in the words that a tenant reads. */
import { globSync, readFileSync } from 'node:fs'
import test from 'ava'
import { loadConditions } from '#policies/container-conditions'
import { PolicyEngine } from '#policies/engine'
import type { ContainerRequest, ExecRequest } from '#policies/requests'
import { parseWorkloadPolicy } from '#policies/workload'
import { DeniedError } from '#protocol/errors'

const DIGEST = `sha256:${'ab'.repeat(32)}`
const OTHER = `sha256:${'cd'.repeat(32)}`
const POLICY = parseWorkloadPolicy(`
apiVersion: caisson/v1
kind: WorkloadPolicy
volumes:
  - { name: cache, kind: scratch, maxBytes: 8192 }
  - { name: settings, kind: config-map, digest: "${DIGEST}" }
  - { name: once, kind: secret }
  - { name: raw, kind: block }
dns: [10.96.0.0/16, "fd00::10"]
containers:
  - name: web
    image: r.test/web@${DIGEST}
    env:
      MODE: [debug, production]
      URL: { glob: "https://*.shop.test/" }
      POD_IP: { format: ip }
      TOKEN: { secret: default/app/token }
      KEY: { sealed: default/app/sealing-key }
    mounts:
      - { kind: scratch, path: /data, maxBytes: 8192, required: false }
      - { kind: tmpfs, path: /ro, readOnly: true, required: false }
      - { volume: cache, path: /cache, required: false }
    groups: [2000]
    api: { resources: [default/app/one] }
    ports: [8443]
    exec: [[nginx, -t]]
    signals: [1]
    resources: { memory: { max: 64Mi }, cpu: { min: 100m, max: 500m }, pids: { max: 100 } }
    conditions:
      - { name: debug-is-local, require: 'request.env.MODE != "debug" || request.env.POD_IP == "127.0.0.1"', remedy: Debug on one machine. }
  - { name: job, image: "r.test/job@${DIGEST}", args: [run, --once], user: "33", workingDir: /srv, requires: [web] }
  - { name: disk, image: "r.test/disk@${DIGEST}", devices: [{ volume: raw, path: /dev/raw }] }
  - { name: twin, image: "r.test/twin@${DIGEST}" }
  - { name: other-twin, image: "r.test/twin@${DIGEST}" }
  - { name: setup, image: "r.test/setup@${DIGEST}", role: init }
  - { name: signed, image: r.test/signed, signedBy: [{ key: default/keys/release }] }
  - { name: debug, image: "r.test/debug@${DIGEST}", targetContainer: job }
`)
/** `throw denied(` in policies/: a new one needs a row. */
const PLACES = 37
const CONDITIONS = await loadConditions(POLICY)
const REQUEST: ContainerRequest = {
  containerId: 'c1',
  name: 'web',
  image: 'r.test/web:1',
  args: undefined,
  env: ['MODE=production'],
  user: '',
  workingDir: '',
  mounts: [],
  terminal: false,
  stdin: false,
  sharesProcesses: false,
  resources: { memoryBytes: 2 ** 20, cpuQuotaUs: 20_000, cpuPeriodUs: 100_000, pids: 10 },
}
const EXEC: ExecRequest = {
  containerId: 'web',
  args: ['nginx', '-t'],
  env: [],
  user: '',
  workingDir: '',
  terminal: false,
  stdin: false,
}

const create =
  (change: Partial<ContainerRequest>) =>
  (engine: PolicyEngine): unknown =>
    engine.admitContainer({ ...REQUEST, ...change })
const job = (change: Partial<ContainerRequest>) => create({ name: 'job', image: 'r.test/job', env: [], ...change })
const exec =
  (change: Partial<ExecRequest>) =>
  (engine: PolicyEngine): void =>
    engine.admitExec({ ...EXEC, ...change })
const limits = (change: Partial<ContainerRequest['resources']>) =>
  create({ resources: { ...REQUEST.resources, ...change } })

interface Denial {
  readonly title: string
  readonly asked: (engine: PolicyEngine) => unknown
  /** Field: sentence. */
  readonly message: string
  readonly hint?: string
}

/** Of a request to create the first container. */
const OF_THE_FIRST: readonly Denial[] = [
  {
    title: 'another name server',
    asked: (engine) => engine.admitNameServers(['10.96.0.10', 'fd00:0::10', '8.8.8.8']),
    message: 'dns: the policy allows 10.96.0.0/16, fd00::10; asked: "8.8.8.8"',
  },
  {
    title: 'a kernel setting',
    asked: (engine) => engine.admitSysctl('kernel.msgmax', '1'),
    message: 'sysctls.kernel.msgmax: the policy allows no change; asked: "1"',
  },
  {
    title: 'shared processes',
    asked: (engine) => engine.admitContainer({ ...REQUEST, sharesProcesses: true }),
    message: 'shareProcessNamespace: the policy allows false; asked: "true"',
  },
  {
    title: 'a container whose target does not run',
    asked: (engine) => engine.admitContainer({ ...REQUEST, name: 'debug', image: 'r.test/debug:1', env: [] }),
    message: 'containers.debug.targetContainer: the policy allows it while job runs; asked: "it alone"',
  },
  {
    title: 'an unknown name',
    asked: create({ name: 'db' }),
    message: 'containers.name: the policy allows web, job, disk, twin, other-twin, setup, signed, debug; asked: "db"',
  },
  {
    title: 'an unknown image',
    asked: create({ name: '', image: 'r.test/db:1' }),
    message: `containers.image: the policy allows r.test/web@${DIGEST}, r.test/job@${DIGEST}, r.test/disk@${DIGEST}, r.test/twin@${DIGEST}, r.test/twin@${DIGEST}, r.test/setup@${DIGEST}, r.test/signed signed by default/keys/release, r.test/debug@${DIGEST}; asked: "r.test/db:1"`,
  },
  {
    title: 'an image of two rules',
    asked: create({ name: '', image: 'r.test/twin' }),
    message: `containers.image: the policy allows r.test/web@${DIGEST}, r.test/job@${DIGEST}, r.test/disk@${DIGEST}, r.test/twin@${DIGEST}, r.test/twin@${DIGEST}, r.test/setup@${DIGEST}, r.test/signed signed by default/keys/release, r.test/debug@${DIGEST}; asked: "r.test/twin"`,
  },
  {
    title: 'another image for the name',
    asked: create({ image: 'r.test/db:1' }),
    message: `containers.web.image: the policy allows r.test/web@${DIGEST}; asked: "r.test/db:1"`,
  },
  {
    title: 'another repository than the signers’',
    asked: create({ name: 'signed', image: 'r.test/web:1' }),
    message:
      'containers.signed.image: the policy allows r.test/signed signed by default/keys/release; asked: "r.test/web:1"',
  },
  {
    title: 'a command in place of the image’s own',
    asked: create({ args: ['sh'] }),
    message: 'containers.web.args: the policy allows the image\'s own command; asked: "[\\"sh\\"]"',
  },
  {
    title: 'a variable that is not listed',
    asked: create({ env: ['LD_PRELOAD=/x'] }),
    message: 'containers.web.env.LD_PRELOAD: the policy allows MODE, URL, POD_IP, TOKEN, KEY; asked: "LD_PRELOAD=/x"',
  },
  {
    title: 'a variable without a value',
    asked: create({ env: ['MODE'] }),
    message: 'containers.web.env.MODE: the policy allows NAME=VALUE; asked: "MODE"',
  },
  {
    title: 'a variable twice',
    asked: create({ env: ['MODE=production', 'MODE=production'] }),
    message: 'containers.web.env.MODE: the policy allows once; asked: "MODE=production"',
  },
  {
    title: 'a value that is not listed',
    asked: create({ env: ['MODE=test'] }),
    message: 'containers.web.env.MODE: the policy allows debug, production; asked: "test"',
  },
  {
    title: 'a value unlike the pattern',
    asked: create({ env: ['URL=http://x/'] }),
    message: 'containers.web.env.URL: the policy allows values like https://*.shop.test/; asked: "http://x/"',
  },
  {
    title: 'a value of another form',
    asked: create({ env: ['POD_IP=host'] }),
    message: 'containers.web.env.POD_IP: the policy allows any value of the form "ip"; asked: "host"',
  },
  {
    title: 'a value for a secret',
    asked: create({ env: ['TOKEN=x'] }),
    message:
      'containers.web.env.TOKEN: the policy allows only the secret default/app/token, which the guest fetches itself; asked: "x"',
  },
  {
    title: 'a plain value for a sealed secret',
    asked: create({ env: ['KEY=x'] }),
    message:
      'containers.web.env.KEY: the policy allows only a sealed secret signed with the key default/app/sealing-key; asked: "x"',
  },
  {
    title: 'a user in place of the image’s own',
    asked: create({ user: '0' }),
    message: 'containers.web.user: the policy allows the image\'s own user; asked: "0"',
  },
  {
    title: 'a directory in place of the image’s own',
    asked: create({ workingDir: '/' }),
    message: 'containers.web.workingDir: the policy allows the image\'s own directory; asked: "/"',
  },
  {
    title: 'a terminal',
    asked: create({ terminal: true }),
    message: 'containers.web.terminal: the policy allows false; asked: "true"',
  },
  {
    title: 'input',
    asked: create({ stdin: true }),
    message: 'containers.web.stdin: the policy allows false; asked: "true"',
  },
  {
    title: 'a mount elsewhere',
    asked: create({ mounts: [{ kind: 'scratch', destination: '/etc', readOnly: false, sizeLimitBytes: 0 }] }),
    message: 'containers.web.mounts: the policy allows scratch:/data, tmpfs:/ro, scratch:/cache; asked: "scratch:/etc"',
  },
  {
    title: 'writing where only reading is allowed',
    asked: create({ mounts: [{ kind: 'tmpfs', destination: '/ro', readOnly: false, sizeLimitBytes: 0 }] }),
    message: 'containers.web.mounts.readOnly: the policy allows true; asked: "false"',
  },
  {
    title: 'a larger mount',
    asked: create({ mounts: [{ kind: 'scratch', destination: '/data', readOnly: false, sizeLimitBytes: 8193 }] }),
    message: 'containers.web.mounts.maxBytes: the policy allows 8192; asked: "8193"',
  },
  {
    title: 'another volume',
    asked: create({
      mounts: [{ kind: 'scratch', destination: '/cache', readOnly: false, sizeLimitBytes: 0, volume: 'other' }],
    }),
    message: 'containers.web.mounts.volume: the policy allows cache; asked: "other"',
  },
  {
    title: 'a larger volume',
    asked: create({ mounts: [{ kind: 'scratch', destination: '/cache', readOnly: false, sizeLimitBytes: 8193 }] }),
    message: 'containers.web.mounts.maxBytes: the policy allows 8192; asked: "8193"',
  },
  {
    title: 'another group',
    asked: create({ groups: [2000, 4] }),
    message: 'containers.web.groups: the policy allows 2000; asked: "4"',
  },
  {
    title: 'another device',
    asked: create({ devices: [{ path: '/dev/other', disk: 'block-0' }] }),
    message: 'containers.web.devices: the policy allows nothing; asked: "/dev/other"',
  },
  {
    title: 'a container without its device',
    asked: create({ name: 'disk', image: 'r.test/disk', env: [] }),
    message: 'containers.disk.devices: the policy allows it with /dev/raw; asked: "it without"',
  },
  {
    title: 'content for a volume that is not declared',
    asked: (engine) => engine.admitVolume({ kind: 'secret', name: 'settings' }),
    message: 'volumes: the policy allows config-map:settings, secret:once; asked: "secret:settings"',
  },
  {
    title: 'other content than the digest',
    asked: (engine) =>
      engine.admitContent(engine.admitVolume({ kind: 'config-map', name: 'settings' }), OTHER, undefined),
    message: `volumes.settings.digest: the policy allows ${DIGEST}; asked: "${OTHER}"`,
  },
  {
    title: 'other content than before',
    asked: (engine) => engine.admitContent(engine.admitVolume({ kind: 'secret', name: 'once' }), OTHER, DIGEST),
    message: `volumes.once.mutable: the policy allows the content that it has (${DIGEST}); asked: "${OTHER}"`,
  },
  {
    title: 'too much memory',
    asked: limits({ memoryBytes: 2 ** 30 }),
    message: 'containers.web.resources.memory: the policy allows at most 67108864 bytes; asked: "1073741824 bytes"',
  },
  {
    title: 'no limit of memory',
    asked: limits({ memoryBytes: 0 }),
    message: 'containers.web.resources.memory: the policy allows at most 67108864 bytes; asked: "no limit"',
  },
  {
    title: 'too little CPU time',
    asked: limits({ cpuQuotaUs: 5000 }),
    message: 'containers.web.resources.cpu: the policy allows at least 100m, at most 500m; asked: "50m"',
  },
  {
    title: 'too many processes',
    asked: limits({ pids: 101 }),
    message: 'containers.web.resources.pids: the policy allows at most 100; asked: "101"',
  },
  {
    title: 'what a condition excludes',
    asked: create({ env: ['MODE=debug', 'POD_IP=10.0.0.1'] }),
    message:
      'containers.web.conditions.debug-is-local: the policy allows what meets request.env.MODE != "debug" || request.env.POD_IP == "127.0.0.1"; asked: "false"',
    hint: 'Debug on one machine.',
  },
  {
    title: 'what a condition cannot judge',
    asked: create({ env: ['MODE=debug'] }),
    message:
      'containers.web.conditions.debug-is-local: the policy allows what meets request.env.MODE != "debug" || request.env.POD_IP == "127.0.0.1"; asked: "no answer: No such key: POD_IP"',
    hint: 'Debug on one machine.',
  },
]

/** When the container `web` runs already. */
const WHILE_ONE_RUNS: readonly Denial[] = [
  {
    title: 'an id that is in use',
    asked: create({ containerId: 'web' }),
    message: 'container_id: the policy allows an id that is not in use; asked: "web"',
  },
  {
    title: 'one container more',
    asked: create({ containerId: 'c2' }),
    message: 'containers.web.max: the policy allows 1 at the same time; asked: "container 2"',
  },
  {
    title: 'another order',
    asked: (engine) => {
      engine.ended('web', 0)
      return job({})(engine)
    },
    message: 'containers.job.requires: the policy allows it after web; asked: "it before web is there"',
  },
  {
    title: 'an init container that has done its work',
    asked: (engine) => {
      const setup = create({ containerId: 'setup', name: 'setup', image: 'r.test/setup', env: [] })
      setup(engine)
      engine.ended('setup', 1)
      engine.release('setup')
      setup(engine)
      engine.ended('setup', 0)
      engine.release('setup')
      return setup(engine)
    },
    message: 'containers.setup.role: the policy allows an init container until it has ended with 0; asked: "it again"',
  },
  {
    title: 'a change of limits beyond the range',
    asked: (engine) => engine.admitLimits('web', { memoryBytes: 2 ** 27, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 0 }),
    message: 'containers.web.resources.memory: the policy allows at most 67108864 bytes; asked: "134217728 bytes"',
  },
  {
    title: 'another command',
    asked: job({ args: ['sh'] }),
    message: 'containers.job.args: the policy allows ["run","--once"]; asked: "[\\"sh\\"]"',
  },
  {
    title: 'a variable where none may be set',
    asked: job({ env: ['A=1'] }),
    message: 'containers.job.env.A: the policy allows nothing; asked: "A=1"',
  },
  {
    title: 'another user',
    asked: job({ user: '0' }),
    message: 'containers.job.user: the policy allows 33; asked: "0"',
  },
  {
    title: 'another directory',
    asked: job({ workingDir: '/' }),
    message: 'containers.job.workingDir: the policy allows /srv; asked: "/"',
  },
  {
    title: 'another exec command',
    asked: exec({ args: ['sh'] }),
    message: 'containers.web.exec: the policy allows ["nginx","-t"]; asked: "[\\"sh\\"]"',
  },
  {
    title: 'an exec command with environment',
    asked: exec({ env: ['A=1'] }),
    message: 'containers.web.exec.env: the policy allows no added environment; asked: "A=1"',
  },
  {
    title: 'an exec command as another user',
    asked: exec({ user: '0' }),
    message: 'containers.web.exec.user: the policy allows the container\'s own user; asked: "0"',
  },
  {
    title: 'an exec command elsewhere',
    asked: exec({ workingDir: '/' }),
    message: 'containers.web.exec.workingDir: the policy allows the container\'s own directory; asked: "/"',
  },
  {
    title: 'an exec command with a terminal',
    asked: exec({ terminal: true }),
    message: 'containers.web.exec.terminal: the policy allows false; asked: "true"',
  },
  {
    title: 'an exec command with input',
    asked: exec({ stdin: true }),
    message: 'containers.web.exec.stdin: the policy allows false; asked: "true"',
  },
  {
    title: 'something of an unknown container',
    asked: exec({ containerId: 'db' }),
    message: 'container_id: the policy allows a container admitted before; asked: "db"',
  },
  {
    title: 'output',
    asked: (engine) => engine.admitOutput('web', false),
    message: 'containers.web.logs: the policy allows none; asked: "read output"',
  },
  {
    title: 'a stream of input',
    asked: (engine) => engine.admitStdin('web'),
    message: 'containers.web.stdin: the policy allows false; asked: "true"',
  },
  {
    title: 'another signal',
    asked: (engine) => engine.admitSignal('web', 19, 3),
    message: 'containers.web.signals: the policy allows 15, 9, 3, 1; asked: "19"',
  },
  {
    title: 'another port',
    asked: (engine) => engine.admitPort(22),
    message: 'containers.*.ports: the policy allows 8443; asked: "22"',
  },
  {
    title: 'another resource at the endpoint',
    asked: (engine) => engine.admitApi('web', { kind: 'resource', resource: 'default/app/two' }),
    message: 'containers.web.api.resources: the policy allows default/app/one; asked: "default/app/two"',
  },
  {
    title: 'the token at the endpoint',
    asked: (engine) => engine.admitApi('web', { kind: 'token' }),
    message: 'containers.web.api.token: the policy allows false; asked: "true"',
  },
  {
    title: 'evidence at the endpoint',
    asked: (engine) => engine.admitApi('web', { kind: 'evidence' }),
    message: 'containers.web.api.evidence: the policy allows false; asked: "true"',
  },
  {
    title: 'the endpoint without access',
    asked: (engine) => {
      job({ containerId: 'job' })(engine)
      engine.admitApi('job', { kind: 'info' })
    },
    message: 'containers.job.api: the policy allows nothing; asked: "info"',
  },
]

function denial(engine: PolicyEngine, { asked }: Denial) {
  const { message, hint } = captured(() => asked(engine))
  return { message, hint }
}

function captured(action: () => unknown): DeniedError {
  try {
    action()
  } catch (error) {
    if (error instanceof DeniedError) return error
    throw error
  }
  throw new Error('it was admitted')
}

function words({ message, hint }: Denial) {
  const field = message.slice(0, message.indexOf(':'))
  return {
    message,
    hint: hint ?? `Change ${field} in the policy if this is intended, and register the new initdata digest.`,
  }
}

for (const row of OF_THE_FIRST) {
  const { title } = row
  test(`a denial of ${title} reads as it is written here`, (t) => {
    t.deepEqual(denial(new PolicyEngine(POLICY, CONDITIONS), row), words(row))
  })
}

for (const row of WHILE_ONE_RUNS) {
  const { title } = row
  test(`a denial of ${title} reads as it is written here, too`, (t) => {
    const engine = new PolicyEngine(POLICY, CONDITIONS)
    engine.admitContainer({ ...REQUEST, containerId: 'web' })
    engine.started('web')
    t.deepEqual(denial(engine, row), words(row))
  })
}

test('the tables have every place where the policy denies', (t) => {
  const places = globSync('policies/*.ts').flatMap((file) => readFileSync(file, 'utf8').match(/throw denied\(/g) ?? [])
  // Of each place at least one row; several places of `checkEqual`, `checkFlag` and ranges have more.
  t.is(places.length, PLACES)
  t.true(OF_THE_FIRST.length + WHILE_ONE_RUNS.length >= PLACES)
})
