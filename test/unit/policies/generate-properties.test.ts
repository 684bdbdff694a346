/** Of any pod: its policy admits its requests and nothing else; of any text: it is read or refused. */
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { PolicyEngine } from '#policies/engine'
import { parseKubernetesFiles } from '#policies/generate/kubernetes-objects'
import { generatePolicy } from '#policies/generate/pod'
import type { ContainerRequest } from '#policies/requests'
import { parseWorkloadPolicy } from '#policies/workload'
import { DeniedError } from '#protocol/errors'
import { refusesOrKeeps } from '../parser-property.ts'
import { generate, image, pod } from './generated.ts'

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
