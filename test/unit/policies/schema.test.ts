import { readFileSync } from 'node:fs'
import test from 'ava'
import { parseWorkloadPolicy } from '#policies/workload'
import { fitsSchema } from '../../fixtures/json-schema.ts'
import { altered, refusesOrKeeps } from '../parser-property.ts'

const SCHEMA = JSON.parse(readFileSync('docs/schemas/workload-policy.schema.json', 'utf8')) as Record<string, unknown>
const CONTAINER = {
  name: 'web',
  image: `registry.test:5000/shop/web:1@sha256:${'a'.repeat(64)}`,
  args: ['serve'],
  env: {
    A: 'x',
    B: ['x', 'y'],
    C: { glob: 'x*' },
    D: { format: 'dns-name' },
    E: { secret: 'default/a/b' },
  },
  serviceEnv: true,
  user: '1:2',
  workingDir: '/srv/x',
  mounts: [{ kind: 'scratch', path: '/d', readOnly: true, maxBytes: 4096, required: false }],
  secrets: [{ resource: 'a/b/c', path: '/s', mode: '0400', uid: 1, gid: 2 }],
  identity: { path: '/run/identity', names: ['web.shop.example', 'web'], uid: 1, gid: 2 },
  readOnlyRoot: true,
  terminal: false,
  stdin: false,
  logs: 'allow',
  exec: [['x', 'y']],
  ports: [80],
  signals: [1],
  capabilities: ['KILL'],
  resources: { memory: { min: '1Mi', max: 1048576 }, cpu: { max: '500m' }, pids: { max: 7 } },
  role: 'init',
  requires: [],
  max: 2,
}
const policy = (container: unknown) => ({ apiVersion: 'caisson/v1', kind: 'WorkloadPolicy', containers: [container] })
const parse = (document: unknown) => parseWorkloadPolicy(JSON.stringify(document))

test('the published schema takes a policy with every key, as the parser does', (t) => {
  t.notThrows(() => parse(policy(CONTAINER)))
  t.true(fitsSchema(policy(CONTAINER), SCHEMA))
})

const REFUSED: readonly [string, object][] = [
  ['an unknown key', { privileged: true }],
  ['an image without a digest', { image: 'registry.test/web:1' }],
  ['a variable with two rules', { env: { A: { glob: '*', format: 'ip' } } }],
  ['a form that there is not', { env: { A: { format: 'regex' } } }],
  ['a name that is no variable', { env: { '1A': 'x' } }],
  ['a path with dots', { workingDir: '/a/../b' }],
  ['a path that is relative', { mounts: [{ kind: 'tmpfs', path: 'tmp' }] }],
  ['a mount of another kind', { mounts: [{ kind: 'hostPath', path: '/x' }] }],
  ['a secret without its path', { secrets: [{ resource: 'a/b/c' }] }],
  ['an identity without names', { identity: { path: '/i', names: [] } }],
  ['an identity with a wildcard', { identity: { path: '/i', names: ['*.shop.example'] } }],
  ['an identity that is an address', { identity: { path: '/i', names: ['10.0.0.1'] } }],
  ['an identity that names a name twice', { identity: { path: '/i', names: ['a', 'a'] } }],
  ['a quantity that is none', { resources: { memory: { max: 'lots' } } }],
  ['a range without bounds', { resources: { cpu: {} } }],
  ['an empty command', { exec: [[]] }],
  ['port 0', { ports: [0] }],
  ['another role', { role: 'sidecar' }],
]
for (const [mistake, change] of REFUSED) {
  test(`a workload policy with ${mistake} is refused, by the published schema as well`, (t) => {
    t.throws(() => parse(policy({ ...CONTAINER, ...change })), { code: 'ERR_POLICY_MALFORMED' })
    t.false(fitsSchema(policy({ ...CONTAINER, ...change }), SCHEMA))
  })
}

test('what the parser takes, the published schema takes', (t) => {
  for (const part of [CONTAINER, CONTAINER.resources, CONTAINER.env]) {
    const whole = (value: unknown) =>
      policy(part === CONTAINER ? value : { ...CONTAINER, [part === CONTAINER.env ? 'env' : 'resources']: value })
    refusesOrKeeps(
      t,
      altered(part),
      (value) => parse(whole(value)),
      (_policy, value) => fitsSchema(whole(value), SCHEMA),
    )
  }
})
