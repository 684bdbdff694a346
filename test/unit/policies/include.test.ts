import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { parse } from 'yaml'
import { readPolicyFile } from '#cli/policy-file'
import { resolveIncludes } from '#policies/include'
import { parseWorkloadPolicy } from '#policies/workload'
import { fitsSchema } from '../../fixtures/json-schema.ts'
import { refusesOrKeeps } from '../parser-property.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`
const POLICY = `# our shop
apiVersion: caisson/v1
kind: WorkloadPolicy
include: [shared/parts.yaml]
containers:
  - name: web # the front
    image: registry.test/web@${DIGEST}
    use: [server]
    env: { MODE: production }
    ports: [8443]
`
const PARTS = `apiVersion: caisson/v1
kind: WorkloadPolicyParts
parts:
  server:
    env: { LEVEL: [info, debug] } # of every server
    ports: [9090]
    capabilities: []
    resources: { memory: { max: 512Mi } }
containers:
  - name: proxy
    image: registry.test/proxy@${DIGEST}
    use: [server]
`

function resolved(policy: string, parts: string): string {
  return resolveIncludes(policy, () => parts)
}

test('shared parts are put in place: mappings and lists are joined, containers follow, comments and order stay', (t) => {
  const flat = resolved(POLICY, PARTS)
  t.true(flat.startsWith('# our shop\n') && flat.includes('# the front') && flat.includes('# of every server'))
  const [web, proxy, ...more] = parseWorkloadPolicy(flat).containers
  t.deepEqual([...(web?.env.keys() ?? [])], ['MODE', 'LEVEL'])
  t.deepEqual(web?.ports, [8443, 9090])
  t.deepEqual(web?.capabilities, [])
  t.deepEqual([proxy?.name, proxy?.ports, proxy?.resources.memory?.max], ['proxy', [9090], 512 * 2 ** 20])
  t.is(more.length, 0)
  t.is(
    resolveIncludes(flat, () => ''),
    flat,
    'what includes nothing stays as it is',
  )
})

test('a file is included relative to the policy, and no guest takes a policy that still includes one', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'include-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  mkdirSync(join(folder, 'shared'))
  writeFileSync(join(folder, 'policy.yaml'), POLICY)
  t.throws(() => readPolicyFile(join(folder, 'policy.yaml')), { code: 'ERR_FILE_UNREADABLE' })
  writeFileSync(join(folder, 'shared/parts.yaml'), PARTS)
  t.is(readPolicyFile(join(folder, 'policy.yaml')), resolved(POLICY, PARTS))
  t.throws(() => parseWorkloadPolicy(POLICY), { code: 'ERR_POLICY_MALFORMED' })
  const schema = JSON.parse(readFileSync('docs/schemas/workload-policy.schema.json', 'utf8')) as Record<string, unknown>
  t.true(fitsSchema(parse(POLICY), schema))
})

const REFUSED: readonly [string, string, string, RegExp][] = [
  ['uses a part that there is not', POLICY.replace('[server]', '[sever]'), PARTS, /containers\.web\.use: names sever/],
  ['uses no list of parts', POLICY.replace('[server]', 'server'), PARTS, /containers\.web\.use: must be a list/],
  [
    'writes a value that its part writes, too',
    POLICY.replace('ports:', 'resources: { memory: { max: 1Gi } }\n    ports:'),
    PARTS,
    /containers\.web\.resources\.memory\.max: is written here and in a part/,
  ],
  [
    'writes a command that its part writes, too',
    POLICY.replace('ports:', 'args: [a]\n    ports:'),
    PARTS.replace('capabilities: []', 'args: [b]'),
    /containers\.web\.args/,
  ],
  ['includes what is no file of parts', POLICY, POLICY, /shared\/parts\.yaml: .*include/],
  ['includes a file with an anchor', POLICY, PARTS.replace('[9090]', '&a [9090]'), /shared\/parts\.yaml: .*anchor/],
  ['includes a part that is no mapping', POLICY, PARTS.replace('parts:\n', 'parts:\n  x: 1\n'), /parts\.x/],
  [
    'includes nothing by an empty list',
    POLICY.replace('[shared/parts.yaml]', '[]'),
    PARTS,
    /include must name 1 to 16/,
  ],
]
for (const [what, policy, parts, message] of REFUSED) {
  test(`a policy that ${what} is refused with its place`, (t) => {
    t.throws(() => resolved(policy, parts), { code: 'ERR_POLICY_MALFORMED', message })
  })
}

test('whatever is included is put in place or refused, and what comes out includes nothing', (t) => {
  const cut = (text: string) => fc.nat(text.length).map((at) => text.slice(0, at))
  refusesOrKeeps(
    t,
    fc.tuple(fc.oneof(cut(POLICY), fc.constant(POLICY), fc.string()), fc.oneof(cut(PARTS), fc.json(), fc.string())),
    ([policy, parts]) => resolved(policy, parts),
    (flat) => resolveIncludes(flat, () => '') === flat,
  )
})
