import test from 'ava'
import { PolicyEngine } from '#policies/engine'
import type { ContainerRequest } from '#policies/requests'
import { parseWorkloadPolicy } from '#policies/workload'
import { DeniedError } from '#protocol/errors'

const DIGEST = `sha256:${'d'.repeat(64)}`
const OTHER = `sha256:${'e'.repeat(64)}`
const IMAGE = `registry.test/app@sha256:${'a'.repeat(64)}`

const policy = (volumes: string, container = '') => `
apiVersion: caisson/v1
kind: WorkloadPolicy
volumes:
${volumes}
containers:
  - name: app
    image: ${IMAGE}
${container}
`
const POLICY = policy(
  `  - { name: cache, kind: scratch, maxBytes: 1048576 }
  - { name: settings, kind: config-map, digest: "${DIGEST}" }
  - { name: once, kind: secret }
  - { name: labels, kind: downward-api, mutable: true }`,
  `    groups: [2000]
    mounts:
      - { volume: cache, path: /cache, required: false }
      - { volume: settings, path: /etc/app, subPath: app/main.yaml, required: false }`,
)

const request = (change: Partial<ContainerRequest>): ContainerRequest => ({
  containerId: 'c',
  name: 'app',
  image: IMAGE,
  args: undefined,
  env: [],
  user: '',
  workingDir: '',
  mounts: [],
  terminal: false,
  stdin: false,
  sharesProcesses: false,
  resources: { memoryBytes: 0, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 0 },
  ...change,
})
const engine = () => new PolicyEngine(parseWorkloadPolicy(POLICY))
const mount = (change: object) => ({
  kind: 'scratch',
  destination: '/cache',
  readOnly: false,
  sizeLimitBytes: 0,
  ...change,
})

test('a mount of a volume has the volume’s kind, and what the host fills is read-only whatever is asked', (t) => {
  const { mounts } = engine().admitContainer(
    request({
      mounts: [
        mount({ volume: 'cache' }),
        mount({ kind: 'config-map', destination: '/etc/app', readOnly: true, volume: 'settings' }),
      ],
    }),
  )
  t.like(mounts[0], { kind: 'scratch', readOnly: false })
  t.like(mounts[1], { kind: 'config-map', readOnly: true, subPath: 'app/main.yaml' })
})

test('content is admitted for a declared volume of the same kind: any, none but one, or anew each time', (t) => {
  const judge = engine()
  const settings = judge.admitVolume({ kind: 'config-map', name: 'settings' })
  t.notThrows(() => judge.admitContent(settings, DIGEST, undefined))
  const once = judge.admitVolume({ kind: 'secret', name: 'once' })
  t.notThrows(() => judge.admitContent(once, OTHER, undefined))
  t.notThrows(() => judge.admitContent(once, OTHER, OTHER))
  const labels = judge.admitVolume({ kind: 'downward-api', name: 'labels' })
  t.notThrows(() => judge.admitContent(labels, DIGEST, OTHER))
})

const denials: Readonly<Record<string, readonly [field: string, ask: (judge: PolicyEngine) => void]>> = {
  'content for a volume that is not declared': ['volumes', (judge) => judge.admitVolume({ kind: 'secret', name: 'x' })],
  'content of another kind': ['volumes', (judge) => judge.admitVolume({ kind: 'secret', name: 'settings' })],
  'content for a volume that starts empty': [
    'volumes',
    (judge) => judge.admitVolume({ kind: 'scratch', name: 'cache' }),
  ],
  'other content than the digest': [
    'volumes.settings.digest',
    (judge) => judge.admitContent(judge.admitVolume({ kind: 'config-map', name: 'settings' }), OTHER, undefined),
  ],
  'other content than before': [
    'volumes.once.mutable',
    (judge) => judge.admitContent(judge.admitVolume({ kind: 'secret', name: 'once' }), DIGEST, OTHER),
  ],
  'another volume at its place': [
    'containers.app.mounts.volume',
    (judge) => judge.admitContainer(request({ mounts: [mount({ volume: 'other' })] })),
  ],
  'a larger volume than its limit': [
    'containers.app.mounts.maxBytes',
    (judge) => judge.admitContainer(request({ mounts: [mount({ sizeLimitBytes: 1_048_577 })] })),
  ],
  'writing to what the host fills': [
    'containers.app.mounts.readOnly',
    (judge) => judge.admitContainer(request({ mounts: [mount({ kind: 'config-map', destination: '/etc/app' })] })),
  ],
  'a group that is not the policy’s': [
    'containers.app.groups',
    (judge) => judge.admitContainer(request({ groups: [2000, 0] })),
  ],
}
for (const [what, [field, ask]] of Object.entries(denials)) {
  test(`${what} is denied, naming ${field}`, (t) => {
    const error = t.throws(() => ask(engine()), { instanceOf: DeniedError, code: 'ERR_POLICY_DENIED' })
    t.is(error?.field, field)
  })
}

const mistakes: Readonly<Record<string, string>> = {
  'a kind of the host’s': policy('  - { name: a, kind: hostPath }'),
  'a volume twice': policy('  - { name: a, kind: tmpfs }\n  - { name: a, kind: scratch }'),
  'a digest of what changes': policy(`  - { name: a, kind: secret, mutable: true, digest: "${DIGEST}" }`),
  'a mount of no volume': policy('  - { name: a, kind: tmpfs }', '    mounts: [{ volume: b, path: /b }]'),
  'a part outside': policy('  - { name: a, kind: tmpfs }', '    mounts: [{ volume: a, path: /b, subPath: x/../../y }]'),
  'a part of everything': policy('  - { name: a, kind: tmpfs }', '    mounts: [{ volume: a, path: /b, subPath: "" }]'),
  'a limit for content': policy('  - { name: a, kind: secret, maxBytes: 4096 }'),
}
for (const [what, text] of Object.entries(mistakes)) {
  test(`a policy with ${what} among its volumes is refused`, (t) => {
    t.throws(() => parseWorkloadPolicy(text), { code: 'ERR_POLICY_MALFORMED' })
  })
}
