import { readdirSync, readFileSync } from 'node:fs'
import test from 'ava'
import { injectPod } from '#policies/generate/inject'
import { type PodTemplate, parseKubernetesFiles } from '#policies/generate/kubernetes-objects'
import { generatePolicy } from '#policies/generate/pod'
import { parseWorkloadPolicy } from '#policies/workload'
import { digest, generate, image, pod, ruleOf } from './generated.ts'

const VECTORS = 'test/vectors/rego/genpolicy/tests/generate/testdata'

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
