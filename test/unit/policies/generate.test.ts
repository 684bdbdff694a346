import { readdirSync, readFileSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { PolicyEngine } from '#policies/engine'
import { injectPod } from '#policies/generate/inject'
import { type PodTemplate, parseKubernetesFiles } from '#policies/generate/kubernetes-objects'
import { type GeneratedPolicy, generatePolicy } from '#policies/generate/pod'
import type { ContainerRequest } from '#policies/requests'
import { parseWorkloadPolicy } from '#policies/workload'
import { DeniedError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import { type VolumeFile, volumeDigest } from '#protocol/volume-content'
import { refusesOrKeeps } from '../parser-property.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`
const VECTORS = 'test/vectors/rego/genpolicy/tests/generate/testdata'
const image = (reference: string) => ({
  pinned: `${reference.replace(/:[^/]*$/, '')}@${DIGEST}`,
  entrypoint: ['/entry'],
})

const digest = (files: readonly VolumeFile[]) => volumeDigest(nodeCrypto, files)

function generate(yaml: string, options: { logs?: boolean; offline?: boolean } = {}): GeneratedPolicy {
  const objects = parseKubernetesFiles([{ name: 'pod.yaml', text: yaml }])
  const [pod] = objects.templates
  if (pod === undefined) throw new Error('no pod in the YAML')
  return generatePolicy(pod, objects, {
    image: options.offline === true ? () => undefined : image,
    logs: options.logs ?? false,
  })
}

function pod(container: object, spec: object = {}): string {
  const containers = [{ name: 'web', image: 'registry.test/web:1', ...container }]
  return JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p' }, spec: { containers, ...spec } })
}

/** The rule of the first container, as its policy reads. */
function ruleOf(container: object, more = ''): ReturnType<typeof parseWorkloadPolicy>['containers'][number] {
  const { yaml } = generate(`${pod(container)}\n${more}`)
  const [rule] = parseWorkloadPolicy(yaml).containers
  if (rule === undefined) throw new Error('no container in the policy')
  return rule
}

test('every kind of workload gives the policy of its pods', (t) => {
  const template = { spec: { containers: [{ name: 'web', image: 'registry.test/web:1' }] } }
  const kinds: readonly [string, object][] = [
    ['Pod', template],
    ...['Deployment', 'ReplicaSet', 'ReplicationController', 'StatefulSet', 'DaemonSet', 'Job'].map(
      (kind): [string, object] => [kind, { spec: { template } }],
    ),
    ['CronJob', { spec: { jobTemplate: { spec: { template } } } }],
  ]
  const policies = kinds.map(([kind, body]) => generate(JSON.stringify({ kind, metadata: { name: 'x' }, ...body })))
  t.deepEqual(
    policies.map(({ owner }) => owner),
    kinds.map(([kind]) => `${kind}/x`),
  )
  for (const { yaml } of policies) t.is(parseWorkloadPolicy(yaml).containers[0]?.repository, 'registry.test/web')
})

test('equal files give equal text, and a policy of a real deployment has fewer than 100 lines', (t) => {
  const files = readdirSync(VECTORS).map((name) => ({ name, text: readFileSync(`${VECTORS}/${name}`, 'utf8') }))
  const objects = parseKubernetesFiles(files)
  t.true(objects.templates.length >= 4)
  for (const template of objects.templates) {
    const { yaml } = generatePolicy(template, objects, { image, logs: false })
    t.is(generatePolicy(template, objects, { image, logs: false }).yaml, yaml)
    t.true(yaml.split('\n').length < 100, template.owner)
  }
})

test('a command replaces the entrypoint, arguments alone follow it, and references are filled in', (t) => {
  t.deepEqual(ruleOf({}).args, { kind: 'from-image' })
  t.deepEqual(ruleOf({ command: ['a'], args: ['b'] }).args, { kind: 'exact', args: ['a', 'b'] })
  t.deepEqual(ruleOf({ args: ['b'] }).args, { kind: 'exact', args: ['/entry', 'b'] })
  const env = [
    { name: 'P', value: '80' },
    { name: 'Q', value: '$(P)1' },
  ]
  const words = ['$(P)', '$(Q)', '$$(P)', '$(UNKNOWN)', 'a$(P)b']
  t.deepEqual(ruleOf({ command: words, env }).args, {
    kind: 'exact',
    args: ['80', '801', '$(P)', '$(UNKNOWN)', 'a80b'],
  })
})

test('values of ConfigMaps are taken over, those of Secrets become resources of the verifier and never text', (t) => {
  const objects = [
    { kind: 'ConfigMap', metadata: { name: 'conf' }, data: { mode: 'prod', PORT: '8080' } },
    { kind: 'Secret', metadata: { name: 'db' }, stringData: { password: 'hunter2' } },
  ]
  const container = {
    env: [
      { name: 'MODE', valueFrom: { configMapKeyRef: { name: 'conf', key: 'mode' } } },
      { name: 'PASSWORD', valueFrom: { secretKeyRef: { name: 'db', key: 'password' } } },
    ],
    envFrom: [{ configMapRef: { name: 'conf' }, prefix: 'C_' }, { secretRef: { name: 'db' } }],
  }
  const more = objects.map((object) => `---\n${JSON.stringify(object)}`).join('\n')
  t.false(generate(`${pod(container)}\n${more}`).yaml.includes('hunter2'))
  t.deepEqual(Object.fromEntries(ruleOf(container, more).env), {
    C_mode: { kind: 'values', values: ['prod'] },
    C_PORT: { kind: 'values', values: ['8080'] },
    password: { kind: 'secret', resource: 'default/db/password' },
    MODE: { kind: 'values', values: ['prod'] },
    PASSWORD: { kind: 'secret', resource: 'default/db/password' },
  })
})

test('what only the cluster knows is bounded by its form', (t) => {
  const field = (name: string, fieldPath: string) => ({ name, valueFrom: { fieldRef: { fieldPath } } })
  const { env } = ruleOf({
    env: [field('IP', 'status.podIP'), field('NODE', 'spec.nodeName'), field('POD', 'metadata.name')],
  })
  t.deepEqual(Object.fromEntries(env), {
    IP: { kind: 'format', format: 'ip' },
    NODE: { kind: 'format', format: 'dns-name' },
    POD: { kind: 'values', values: ['p'] },
  })
})

test('what cannot be known is a marked choice, and no guest takes a policy with one', (t) => {
  const missing = { env: [{ name: 'X', valueFrom: { configMapKeyRef: { name: 'gone', key: 'k' } } }], args: ['x'] }
  const { yaml, choices } = generate(pod(missing), { offline: true })
  t.deepEqual(
    choices.map(({ path }) => path),
    ['containers[0].image', 'containers[0].args', 'containers[0].env.X'],
  )
  t.throws(() => parseWorkloadPolicy(yaml), {
    code: 'ERR_POLICY_MALFORMED',
    message: /choice left open: repository and digest/,
  })
})

test('what would share something with the host is refused with a reason and a remedy, and is not in the policy', (t) => {
  const container = {
    securityContext: { privileged: true },
    volumeMounts: [
      { name: 'host', mountPath: '/host' },
      { name: 'claim', mountPath: '/claim' },
      { name: 'data', mountPath: '/data', subPathExpr: '$(POD)' },
      { name: 'none', mountPath: '/none' },
    ],
  }
  const volumes = [
    { name: 'host', hostPath: { path: '/' } },
    { name: 'claim', persistentVolumeClaim: { claimName: 'c' } },
    { name: 'data', emptyDir: {} },
  ]
  const { yaml, refusals } = generate(pod(container, { volumes, hostNetwork: true }))
  t.deepEqual(
    refusals.map(({ path }) => path),
    [
      'hostNetwork',
      'containers.web.volumeMounts[/host]',
      'containers.web.volumeMounts[/claim]',
      'containers.web.volumeMounts[/data]',
      'containers.web.volumeMounts[/none]',
      'containers.web.securityContext.privileged',
    ],
  )
  t.true(refusals.every(({ reason, remedy }) => reason.length > 10 && remedy.length > 5))
  t.deepEqual(parseWorkloadPolicy(yaml).containers[0]?.mounts, [])
})

test('volumes of the pod are declared once, by what they are and by what is known of their content', (t) => {
  const container = {
    volumeMounts: [
      { name: 'cache', mountPath: '/cache/', subPath: 'web/' },
      { name: 'conf', mountPath: '/etc/app' },
      { name: 'some', mountPath: '/etc/some' },
      { name: 'keys', mountPath: '/etc/keys' },
      { name: 'all', mountPath: '/etc/all' },
    ],
  }
  const spec = {
    securityContext: { fsGroup: 2000, supplementalGroups: [3000] },
    volumes: [
      { name: 'cache', emptyDir: { sizeLimit: '8Mi' } },
      { name: 'unused', emptyDir: {} },
      { name: 'conf', configMap: { name: 'conf' } },
      { name: 'some', configMap: { name: 'conf', items: [{ key: 'mode', path: 'a/b' }] } },
      { name: 'keys', secret: { secretName: 's' } },
      { name: 'all', projected: { sources: [] } },
    ],
  }
  const objects = parseKubernetesFiles([
    { name: 'pod', text: pod(container, spec) },
    { name: 'x', text: 'kind: ConfigMap\nmetadata: { name: conf }\ndata: { mode: fast }\nbinaryData: { raw: AAE= }' },
  ])
  const { yaml, choices, refusals } = generatePolicy(objects.templates[0] as PodTemplate, objects, {
    image,
    logs: false,
    digest,
  })
  t.deepEqual([choices, refusals], [[], []])
  const { volumes, containers } = parseWorkloadPolicy(yaml)
  const files = (...named: [string, number[]][]) =>
    digest(named.map(([path, bytes]) => ({ path, content: new Uint8Array(bytes) })))
  const fast = [...Buffer.from('fast')]
  t.deepEqual([...volumes.keys()], ['cache', 'conf', 'some', 'keys', 'all'])
  t.like(volumes.get('cache'), { kind: 'scratch', maxBytes: 8 * 2 ** 20, gid: 2000 })
  t.like(volumes.get('conf'), { kind: 'config-map', digest: files(['mode', fast], ['raw', [0, 1]]), gid: 2000 })
  t.like(volumes.get('some'), { digest: files(['a/b', fast]) })
  t.like(volumes.get('keys'), { kind: 'secret', mutable: false, digest: undefined })
  t.like(volumes.get('all'), { kind: 'projected', mutable: true })
  t.deepEqual(containers[0]?.groups, [2000, 3000])
  t.like(containers[0]?.mounts[0], { path: '/cache', subPath: 'web' })
  const claim = { volumeDevices: [{ name: 'data', devicePath: '/dev/db' }] }
  const claimed = generate(pod(claim, { volumes: [{ name: 'data', persistentVolumeClaim: { claimName: 'c' } }] }))
  t.regex(claimed.choices.map(({ question }) => question).join(), /luks .* or block/)
  t.regex(claimed.yaml, /devices:\n.*volume: data, path: \/dev\/db/)
  // What is not in the files is asked for, and never guessed.
  t.regex(
    generate(pod(container, spec))
      .choices.map(({ question }) => question)
      .join(),
    /digest of conf/,
  )
})

test('init containers come one after the other, sidecars keep running, and main containers wait for all of them', (t) => {
  const container = (name: string, more: object = {}) => ({ name, image: `registry.test/${name}:1`, ...more })
  const spec = {
    initContainers: [container('one'), container('side', { restartPolicy: 'Always' }), container('two')],
    containers: [container('web'), container('log')],
  }
  const { yaml } = generate(JSON.stringify({ kind: 'Pod', metadata: { name: 'p' }, spec }))
  t.deepEqual(
    parseWorkloadPolicy(yaml).containers.map(({ name, role, requires }) => [name, role, requires]),
    [
      ['one', 'init', []],
      ['side', 'main', ['one']],
      ['two', 'init', ['one', 'side']],
      ['web', 'main', ['one', 'side', 'two']],
      ['log', 'main', ['one', 'side', 'two']],
    ],
  )
})

test('probes and hooks that run a command are the commands that the host may run, and no others', (t) => {
  const rule = ruleOf({
    livenessProbe: { exec: { command: ['cat', '/alive'] } },
    readinessProbe: { exec: { command: ['cat', '/alive'] } },
    startupProbe: { httpGet: { port: 80 } },
    lifecycle: { preStop: { exec: { command: ['drain'] } } },
  })
  t.deepEqual(rule.exec, [['cat', '/alive'], ['drain']])
  t.false(rule.logs)
})

test('dropping all capabilities leaves none, and adding some leaves those', (t) => {
  const capabilities = (value: object) => ruleOf({ securityContext: { capabilities: value } }).capabilities
  t.deepEqual(capabilities({ drop: ['ALL'] }), [])
  t.deepEqual(capabilities({ drop: ['ALL'], add: ['CAP_NET_ADMIN'] }), ['NET_ADMIN'])
  t.false(capabilities({ drop: ['CHOWN'] }).includes('CHOWN'))
})

const PROFILES: Readonly<Record<string, object>> = {
  'allow.json': {
    defaultAction: 'SCMP_ACT_ERRNO',
    architectures: ['SCMP_ARCH_X86_64'],
    syscalls: [{ names: ['write', 'read', 'arm_sync_file_range'], action: 'SCMP_ACT_ALLOW', args: [] }],
  },
  'deny.json': {
    defaultAction: 'SCMP_ACT_ALLOW',
    syscalls: [
      { names: ['ptrace'], action: 'SCMP_ACT_KILL' },
      { names: ['syslog'], action: 'SCMP_ACT_KILL' },
    ],
  },
  'log.json': { defaultAction: 'SCMP_ACT_LOG' },
  'arguments.json': {
    defaultAction: 'SCMP_ACT_ERRNO',
    syscalls: [{ names: ['personality'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 0, op: 'SCMP_CMP_EQ' }] }],
  },
}

test('a seccomp profile is taken over where a list of system calls says the same, and stays a choice where not', (t) => {
  const generated = (container: object, spec: object = {}) => {
    const objects = parseKubernetesFiles([{ name: 'p', text: pod(container, spec) }])
    const [template] = objects.templates
    if (template === undefined) throw new Error('no pod')
    const profile = (name: string) => (PROFILES[name] === undefined ? undefined : JSON.stringify(PROFILES[name]))
    return generatePolicy(template, objects, { image, logs: false, seccompProfiles: profile })
  }
  const security = (seccompProfile: object) => ({ securityContext: { seccompProfile } })
  const local = (localhostProfile: string) => security({ type: 'Localhost', localhostProfile })
  const rule = (container: object, spec: object = {}) =>
    parseWorkloadPolicy(generated(container, spec).yaml).containers[0]?.seccomp
  t.deepEqual(rule({}), { kind: 'guest' })
  t.deepEqual(rule(security({ type: 'RuntimeDefault' })), { kind: 'runtime-default' })
  t.deepEqual(rule({}, security({ type: 'RuntimeDefault' })), { kind: 'runtime-default' }, 'of the pod')
  t.deepEqual(rule(security({ type: 'Unconfined' }), security({ type: 'RuntimeDefault' })), { kind: 'guest' })
  t.regex(generated(security({ type: 'Unconfined' })).yaml, /seccomp: guest # .*own filter holds/)
  t.deepEqual(rule(local('allow.json')), { kind: 'allow', names: ['read', 'write'] })
  t.deepEqual(rule(local('deny.json')), { kind: 'deny', names: ['ptrace', 'syslog'] })
  for (const profile of [local('absent.json'), local('log.json'), local('arguments.json'), security({ type: 'New' })]) {
    t.deepEqual(
      generated(profile).choices.map(({ path }) => path),
      ['containers[0].seccomp'],
    )
  }
})

test('with a key of signers an image without a digest is its repository, and one with a digest stays pinned', (t) => {
  const signed = (container: object, signedBy: string, offline = false) => {
    const objects = parseKubernetesFiles([{ name: 'p', text: pod(container) }])
    const [template] = objects.templates
    if (template === undefined) throw new Error('no pod')
    return generatePolicy(template, objects, { image: offline ? () => undefined : image, logs: false, signedBy })
  }
  const rule = (...of: Parameters<typeof signed>) => parseWorkloadPolicy(signed(...of).yaml).containers[0]
  const pem = '-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n'
  for (const offline of [false, true]) {
    const { repository, digest: pinned, signedBy } = rule({}, 'default/keys/release', offline) ?? {}
    t.deepEqual([repository, pinned], ['registry.test/web', ''])
    t.deepEqual(signedBy, [{ kind: 'key', resource: 'default/keys/release' }])
  }
  t.deepEqual(rule({}, pem)?.signedBy, [{ kind: 'key-data', pem }])
  const already = rule({ image: `registry.test/web@${DIGEST}` }, 'default/keys/release', true)
  t.deepEqual([already?.digest, already?.signedBy], [DIGEST, undefined])
  t.deepEqual(
    signed({ image: 'web' }, 'default/keys/release', true).choices.map(({ path }) => path),
    ['containers[0].image'],
  )
})

test('what a pod needs to run as a guest is written into its YAML, and the rest stays as it was', (t) => {
  const yaml = `# the shop
apiVersion: apps/v1
kind: Deployment
metadata: { name: shop }
spec:
  template:
    spec:
      containers:
        - name: web # the front
          image: registry.test/web:1
          env:
            - { name: A, value: "1" }
            - name: PASSWORD
              valueFrom: { secretKeyRef: { name: db, key: password } }
          envFrom: [{ configMapRef: { name: kept } }, { secretRef: { name: taken } }]
---
kind: Service
`
  const [pod] = parseKubernetesFiles([{ name: 'x', text: yaml }]).templates
  if (pod === undefined) return t.fail()
  const injection = { annotation: { name: 'caisson.dev/initdata', value: 'AAAA' }, runtimeClass: 'caisson' }
  const injected = injectPod(yaml, pod, injection)
  t.true(injected.startsWith('# the shop\n') && injected.includes('# the front') && injected.includes('kind: Service'))
  t.false(injected.includes('PASSWORD') || injected.includes('taken'))
  t.true(injected.includes('kept'))
  const [again] = parseKubernetesFiles([{ name: 'x', text: injected }]).templates
  t.is(again?.annotations['caisson.dev/initdata'], 'AAAA')
  t.is(again?.spec.runtimeClassName, 'caisson')
  t.is(injectPod(injected, pod, injection), injected)
  const large = { ...injection, annotation: { name: 'caisson.dev/initdata', value: 'A'.repeat(256 * 1024) } }
  t.throws(() => injectPod(yaml, pod, large), { code: 'ERR_ANNOTATION_SIZE' })
})

const WORD = fc.stringMatching(/^[a-z][a-z0-9/-]{0,8}$/)
const VOLUME_MOUNTS: readonly (readonly { name: string; mountPath: string; readOnly?: boolean }[])[] = [
  [],
  [{ name: 'd', mountPath: '/d' }],
  [{ name: 'm', mountPath: '/m', readOnly: true }],
]
const CONTAINER = fc.record(
  {
    command: fc.array(WORD, { minLength: 1, maxLength: 3 }),
    env: fc.uniqueArray(fc.record({ name: fc.stringMatching(/^[A-Z]{1,5}$/), value: WORD }), {
      selector: ({ name }) => name,
      maxLength: 4,
    }),
    workingDir: fc.constantFrom('/srv', '/srv/x'),
    tty: fc.boolean(),
    stdin: fc.boolean(),
    securityContext: fc.record({ runAsUser: fc.nat(1000), runAsGroup: fc.nat(1000) }),
    resources: fc.constantFrom({}, { limits: { memory: '64Mi', cpu: '250m' } }),
    volumeMounts: fc.constantFrom(...VOLUME_MOUNTS),
    livenessProbe: fc.record({ exec: fc.record({ command: fc.array(WORD, { minLength: 1, maxLength: 3 }) }) }),
    ports: fc.uniqueArray(fc.record({ containerPort: fc.integer({ min: 1, max: 60_000 }) }), { maxLength: 2 }),
  },
  { requiredKeys: ['env', 'resources', 'volumeMounts'] },
)
type Container = typeof CONTAINER extends fc.Arbitrary<infer Value> ? Value : never

/** The request that a shim makes of this container, written from Kubernetes' rules and not from the generator's. */
function requestOf(container: Container): ContainerRequest {
  const limited = 'limits' in container.resources
  const security = container.securityContext
  return {
    containerId: 'c',
    name: 'web',
    image: `registry.test/web:1`,
    args: container.command,
    env: [...container.env.map(({ name, value }) => `${name}=${value}`), 'KUBERNETES_SERVICE_HOST=10.0.0.1'],
    user: security === undefined ? '' : `${security.runAsUser}:${security.runAsGroup}`,
    workingDir: container.workingDir ?? '',
    mounts: container.volumeMounts.map(({ name, mountPath }) => ({
      kind: name === 'm' ? 'tmpfs' : 'scratch',
      destination: mountPath,
      readOnly: name === 'm',
      sizeLimitBytes: 0,
    })),
    terminal: container.tty ?? false,
    stdin: container.stdin ?? false,
    sharesProcesses: false,
    resources: {
      memoryBytes: limited ? 64 * 2 ** 20 : 0,
      cpuQuotaUs: limited ? 25_000 : 0,
      cpuPeriodUs: limited ? 100_000 : 0,
      pids: 0,
    },
  }
}

/** Each asks for a little more than the pod does. */
const WIDENINGS: readonly ((request: ContainerRequest) => Partial<ContainerRequest>)[] = [
  () => ({ name: 'other' }),
  () => ({ image: `registry.test/web@sha256:${'b'.repeat(64)}` }),
  () => ({ image: 'evil.test/web:1' }),
  ({ args }) => ({ args: [...(args ?? []), 'more'] }),
  ({ env }) => ({ env: [...env, 'LD_PRELOAD=/x'] }),
  ({ env }) => ({ env: env.map((entry, index) => (index === 0 ? `${entry}x` : entry)) }),
  () => ({ user: '0:0:0' }),
  () => ({ workingDir: '/other' }),
  ({ mounts }) => ({
    mounts: [...mounts, { kind: 'scratch', destination: '/more', readOnly: true, sizeLimitBytes: 0 }],
  }),
  ({ mounts: [mount] }) => (mount === undefined ? { name: 'other' } : { mounts: [mount, mount] }),
  ({ resources }) =>
    resources.memoryBytes === 0 ? { name: 'other' } : { resources: { ...resources, memoryBytes: 0 } },
  ({ terminal }) => (terminal ? { name: 'other' } : { terminal: true }),
  ({ stdin }) => (stdin ? { name: 'other' } : { stdin: true }),
]

test('a generated policy admits exactly what its pod asks for: widening any field of a request is denied', (t) => {
  const volumes = [
    { name: 'd', emptyDir: {} },
    { name: 'm', emptyDir: { medium: 'Memory' } },
  ]
  t.notThrows(() =>
    fc.assert(
      fc.property(CONTAINER, (container) => {
        const { yaml, choices, refusals } = generate(pod(container, { volumes }))
        if (choices.length + refusals.length > 0) return false
        const policy = parseWorkloadPolicy(yaml)
        const request = requestOf(container)
        const engine = new PolicyEngine(policy)
        engine.admitContainer(request)
        return (
          WIDENINGS.every((widen) =>
            isDenied(t, () => new PolicyEngine(policy).admitContainer({ ...request, ...widen(request) })),
          ) && onlyItsOwn(t, engine, container)
        )
      }),
      { numRuns: 200 },
    ),
  )
})

/** Once it runs: its probe and its ports, no other command, port, signal, input or output. */
function onlyItsOwn(t: ExecutionContext, engine: PolicyEngine, container: Container): boolean {
  const exec = { containerId: 'c', env: [], user: '', workingDir: '', terminal: false, stdin: false }
  const probe = container.livenessProbe?.exec.command
  if (probe !== undefined) engine.admitExec({ ...exec, args: probe })
  const open = (container.ports ?? []).map(({ containerPort }) => containerPort)
  for (const port of open) engine.admitPort(port)
  const denied: readonly (() => unknown)[] = [
    () => engine.admitExec({ ...exec, args: [...(probe ?? []), 'more'] }),
    () => engine.admitExec({ ...exec, args: probe?.slice(1) ?? ['sh'] }),
    () => engine.admitPort(60_001),
    () => engine.admitSignal('c', 10, 15),
    () => engine.admitOutput('c', false),
    () => engine.admitApi('c', { kind: 'token' }),
    ...(container.stdin === true ? [] : [() => engine.admitStdin('c')]),
    ...('limits' in container.resources
      ? [() => engine.admitLimits('c', { memoryBytes: 2 ** 30, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 0 })]
      : []),
  ]
  return denied.every((action) => isDenied(t, action))
}

function isDenied(t: ExecutionContext, action: () => unknown): boolean {
  try {
    action()
    return false
  } catch (error) {
    t.true(error instanceof DeniedError)
    return true
  }
}

test('whatever is given as Kubernetes YAML is read or refused, and what is read gives a policy or choices', (t) => {
  const yaml = fc.oneof(
    fc.string(),
    fc.json(),
    fc.constant('a: &a [*a]'),
    fc.jsonValue({ maxDepth: 4 }).map((value) => JSON.stringify({ kind: 'Pod', metadata: { name: 'x' }, spec: value })),
    fc
      .jsonValue({ maxDepth: 3 })
      .map((value) => pod({ env: value, volumeMounts: value, command: value, ports: value })),
  )
  refusesOrKeeps(
    t,
    yaml,
    (text) => parseKubernetesFiles([{ name: 'x', text }]),
    (objects) =>
      objects.templates.every((template) =>
        generatePolicy(template, objects, { image, logs: false }).yaml.startsWith('# '),
      ),
  )
})

test('kernel settings, host aliases and shared processes of a pod are taken over, and settings that no guest has are refused', (t) => {
  const { yaml, refusals } = generate(
    pod(
      {},
      {
        shareProcessNamespace: true,
        hostAliases: [{ ip: '10.9.9.9', hostnames: ['db', 'db.test'] }],
        securityContext: {
          sysctls: [
            { name: 'net.core.somaxconn', value: '1024' },
            { name: 'vm.swappiness', value: '1' },
          ],
        },
      },
    ),
  )
  const { pod: rule } = parseWorkloadPolicy(yaml)
  t.true(rule.shareProcessNamespace)
  t.deepEqual([...rule.sysctls], [['net.core.somaxconn', '1024']])
  t.deepEqual(rule.hostAliases, [{ address: '10.9.9.9', names: ['db', 'db.test'] }])
  t.true(refusals.some(({ path }) => path === 'securityContext.sysctls.vm.swappiness'))
})
