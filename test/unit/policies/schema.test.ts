import { readFileSync } from 'node:fs'
import test from 'ava'
import { parseWorkloadPolicy } from '#policies/workload'
import { fitsSchema } from '../../fixtures/json-schema.ts'
import { altered, refusesOrKeeps } from '../parser-property.ts'

const SCHEMA = JSON.parse(readFileSync('docs/schemas/workload-policy.schema.json', 'utf8')) as Record<string, unknown>
const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
const VAULT = { version: '0.1.0', type: 'vault', provider: 'kbs', name: 'kbs:///a/b/c' }
const SEALED = `sealed.${part({ alg: 'ES256', kid: 'kbs:///a/b/key' })}.${part(VAULT)}.${'A'.repeat(86)}`
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
    F: { sealed: 'default/a/key' },
  },
  serviceEnv: true,
  user: '1:2',
  groups: [2000],
  devices: [{ volume: 'raw', path: '/dev/raw', readOnly: true, uid: 1, gid: 2 }],
  workingDir: '/srv/x',
  mounts: [
    { kind: 'scratch', path: '/d', readOnly: true, maxBytes: 4096, required: false },
    { volume: 'cache', path: '/c', readOnly: true, subPath: 'a/b', required: false },
  ],
  secrets: [
    { resource: 'a/b/c', path: '/s', mode: '0400', uid: 1, gid: 2 },
    { sealed: SEALED, key: 'a/b/key', path: '/t' },
  ],
  api: { resources: ['a/b/c'], token: true, evidence: false },
  identity: { path: '/run/identity', names: ['web.shop.example', 'web'], uid: 1, gid: 2 },
  readOnlyRoot: true,
  terminal: false,
  stdin: false,
  logs: 'allow',
  terminationMessage: '/dev/termination-log',
  exec: [['x', 'y']],
  ports: [80],
  egress: ['10.0.0.0/8', { to: 'fd00::/8', ports: [443] }],
  signals: [1],
  capabilities: ['KILL'],
  seccomp: { deny: ['ptrace', 'syslog'] },
  resources: { memory: { min: '1Mi', max: 1048576 }, cpu: { max: '500m' }, pids: { max: 7 } },
  conditions: [{ name: 'mode', require: 'request.env.A == "x"', remedy: 'Set A.' }],
  role: 'init',
  requires: [],
  max: 2,
}
const VOLUMES = [
  { name: 'cache', kind: 'scratch', maxBytes: 1_048_576, gid: 2000 },
  { name: 'settings', kind: 'config-map', digest: `sha256:${'d'.repeat(64)}`, mode: '0440', uid: 1, gid: 2 },
  { name: 'token', kind: 'projected', mutable: true },
  { name: 'raw', kind: 'block' },
  { name: 'db', kind: 'luks', key: 'a/b/c', format: 'empty', gid: 3 },
]
const POD = {
  shareProcessNamespace: true,
  sysctls: { 'net.core.somaxconn': '1024' },
  hostAliases: [{ address: '10.0.0.1', names: ['db', 'db.test'] }],
}
const policy = (container: unknown, volumes: unknown = VOLUMES) => {
  return { apiVersion: 'caisson/v1', kind: 'WorkloadPolicy', volumes, containers: [container] }
}
const PEM = '-----BEGIN PUBLIC KEY-----\nMFkw+/=\n-----END PUBLIC KEY-----\n'
const SIGNERS = [
  { key: 'default/keys/release' },
  { keyData: PEM },
  { issuer: 'https://login.example', subject: 'release@shop.example', trustedRoot: 'default/root/sigstore' },
]
const parse = (document: unknown) => parseWorkloadPolicy(JSON.stringify(document))

test('the published schema takes a policy with every key, as the parser does', (t) => {
  t.notThrows(() => parse({ ...policy(CONTAINER), ...POD }))
  t.true(fitsSchema({ ...policy(CONTAINER), ...POD }, SCHEMA))
  const debug = { ...CONTAINER, name: 'debug', targetContainer: 'web' }
  const two = { ...policy(CONTAINER), containers: [CONTAINER, debug] }
  t.notThrows(() => parse(two))
  t.true(fitsSchema(two, SCHEMA))
  for (const change of [
    { image: 'registry.test:5000/shop/web', signedBy: SIGNERS },
    { seccomp: 'runtime-default' },
    { seccomp: { allow: ['execve', 'exit_group'] } },
  ]) {
    t.notThrows(() => parse(policy({ ...CONTAINER, ...change })))
    t.true(fitsSchema(policy({ ...CONTAINER, ...change }), SCHEMA))
  }
})

test('a system call that there is not is refused by name: its denial would deny nothing', (t) => {
  t.throws(() => parse(policy({ ...CONTAINER, seccomp: { deny: ['ptrace', 'ptraec'] } })), {
    code: 'ERR_POLICY_MALFORMED',
    message: /seccomp\.deny\[1\] is not a system call/,
  })
})

const REFUSED: readonly [string, object][] = [
  ['an unknown key', { privileged: true }],
  ['an image without a digest', { image: 'registry.test/web:1' }],
  ['signers of no image', { image: undefined, signedBy: SIGNERS }],
  ['signers of a digest', { signedBy: SIGNERS }],
  ['signers of a tag', { image: 'registry.test/web:1', signedBy: SIGNERS }],
  ['no signers', { image: 'registry.test/web', signedBy: [] }],
  ['a signer with two keys', { image: 'registry.test/web', signedBy: [{ key: 'a/b/c', keyData: PEM }] }],
  [
    'a signer whose key is private',
    { image: 'registry.test/web', signedBy: [{ keyData: PEM.replaceAll('PUBLIC', 'PRIVATE') }] },
  ],
  [
    'a signer without roots',
    { image: 'registry.test/web', signedBy: [{ issuer: 'https://l.example', subject: 'a@b' }] },
  ],
  ['a seccomp profile that there is not', { seccomp: 'unconfined' }],
  ['system calls that are allowed and denied', { seccomp: { allow: ['read'], deny: ['write'] } }],
  ['an empty list of system calls', { seccomp: { deny: [] } }],
  ['a system call by number', { seccomp: { deny: [101] } }],
  ['a variable with two rules', { env: { A: { glob: '*', format: 'ip' } } }],
  ['a form that there is not', { env: { A: { format: 'regex' } } }],
  ['a name that is no variable', { env: { '1A': 'x' } }],
  ['a path with dots', { workingDir: '/a/../b' }],
  ['a path that is relative', { mounts: [{ kind: 'tmpfs', path: 'tmp' }] }],
  ['a mount of another kind', { mounts: [{ kind: 'hostPath', path: '/x' }] }],
  ['a device without a path', { devices: [{ volume: 'raw' }] }],
  ['a mount with two kinds', { mounts: [{ kind: 'tmpfs', volume: 'cache', path: '/x' }] }],
  ['a mount of a part outside', { mounts: [{ volume: 'cache', path: '/x', subPath: 'a/../b' }] }],
  ['a secret without its path', { secrets: [{ resource: 'a/b/c' }] }],
  [
    'a secret that is sealed and named',
    { secrets: [{ sealed: SEALED, key: 'a/b/key', resource: 'a/b/c', path: '/s' }] },
  ],
  ['a sealed secret without a key', { secrets: [{ sealed: SEALED, path: '/s' }] }],
  ['a sealed secret that is none', { secrets: [{ sealed: 'sealed.', key: 'a/b/key', path: '/s' }] }],
  ['an endpoint that grants nothing', { api: { token: false } }],
  ['an endpoint that grants by pattern', { api: { resources: ['a/b/*'] } }],
  ['a condition without a name', { conditions: [{ require: 'true' }] }],
  ['an identity without names', { identity: { path: '/i', names: [] } }],
  ['an identity with a wildcard', { identity: { path: '/i', names: ['*.shop.example'] } }],
  ['an identity that is an address', { identity: { path: '/i', names: ['10.0.0.1'] } }],
  ['an identity that names a name twice', { identity: { path: '/i', names: ['a', 'a'] } }],
  ['a quantity that is none', { resources: { memory: { max: 'lots' } } }],
  ['a range without bounds', { resources: { cpu: {} } }],
  ['an empty command', { exec: [[]] }],
  ['port 0', { ports: [0] }],
  ['egress to a name', { egress: ['db.example'] }],
  ['egress without a place', { egress: [{ ports: [443] }] }],
  ['egress to no port', { egress: [{ to: '10.0.0.0/8', ports: [] }] }],
  ['another role', { role: 'sidecar' }],
]
for (const [mistake, change] of REFUSED) {
  test(`a workload policy with ${mistake} is refused, by the published schema as well`, (t) => {
    t.throws(() => parse(policy({ ...CONTAINER, ...change })), { code: 'ERR_POLICY_MALFORMED' })
    t.false(fitsSchema(policy({ ...CONTAINER, ...change }), SCHEMA))
  })
}

test('what the parser takes of signers and system calls, the published schema takes', (t) => {
  const signed = { name: 'web', image: 'registry.test/web', signedBy: SIGNERS }
  const narrowed = { name: 'web', image: CONTAINER.image, seccomp: CONTAINER.seccomp }
  for (const part of [signed, narrowed]) {
    refusesOrKeeps(
      t,
      altered(part),
      (value) => parse(policy(value)),
      (_policy, value) => fitsSchema(policy(value), SCHEMA),
    )
  }
})

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

test('what the parser takes of volumes and mounts, the published schema takes', (t) => {
  for (const [index, volume] of VOLUMES.entries()) {
    const whole = (value: unknown) => policy({ ...CONTAINER, mounts: [] }, VOLUMES.with(index, value as typeof volume))
    refusesOrKeeps(
      t,
      altered(volume),
      (value) => parse(whole(value)),
      (_policy, value) => fitsSchema(whole(value), SCHEMA),
    )
  }
  for (const mount of CONTAINER.mounts) {
    const whole = (value: unknown) => policy({ ...CONTAINER, mounts: [value] })
    refusesOrKeeps(
      t,
      altered(mount),
      (value) => parse(whole(value)),
      (_policy, value) => fitsSchema(whole(value), SCHEMA),
    )
  }
})
