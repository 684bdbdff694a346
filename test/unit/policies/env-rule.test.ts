import test from 'ava'
import fc from 'fast-check'
import { parsePolicyDocument } from '#policies/document'
import { envAllows, isServiceVariable, parseEnvRules } from '#policies/env-rule'
import { refusesOrKeeps } from '../parser-property.ts'

const rules = (yaml: string) => parseEnvRules(parsePolicyDocument(yaml))

function allows(yaml: string, value: string): boolean {
  const rule = rules(`X: ${yaml}`).get('X')
  return rule !== undefined && envAllows(rule, value)
}

test('a variable may be set to the value, or to one of the values, of the policy', (t) => {
  t.true(allows('production', 'production'))
  t.false(allows('production', 'Production'))
  t.true(allows('[a, b]', 'b'))
  t.false(allows('[a, b]', 'a, b'))
})

test('a wildcard stands for any characters, and nothing else is special', (t) => {
  t.true(allows('{ glob: "https://*.example/*" }', 'https://api.example/v1?x=[a-z]+'))
  t.false(allows('{ glob: "https://*.example/*" }', 'http://api.example/'))
  t.false(allows('{ glob: "https://*.example/*" }', 'x https://api.example/'))
  t.false(allows('{ glob: "a*a" }', 'a'))
  t.true(allows('{ glob: "a*b*c" }', 'abbc'))
  t.false(allows('{ glob: "a*bc*c" }', 'abc'))
  t.true(allows('{ glob: "a.c" }', 'a.c'))
  t.false(allows('{ glob: "a.c" }', 'abc'))
})

test('wildcards match what a regular expression with .* matches, in linear time', (t) => {
  const piece = fc.stringMatching(/^[ab]{0,3}$/)
  fc.assert(
    fc.property(fc.array(piece, { minLength: 1, maxLength: 5 }), fc.stringMatching(/^[ab]{0,12}$/), (parts, value) => {
      const expected = new RegExp(`^${parts.join('.*')}$`, 's').test(value)
      return envAllows({ kind: 'glob', glob: parts.join('*') }, value) === expected
    }),
    { numRuns: 2000 },
  )
  t.false(envAllows({ kind: 'glob', glob: 'a*'.repeat(15) }, 'a'.repeat(100_000).concat('b').replace(/a/g, 'c')))
})

test('named forms admit what the cluster sets, and nothing that could be more', (t) => {
  const cases: readonly [string, readonly string[], readonly string[]][] = [
    [
      'ip',
      ['10.0.0.1', 'fd00::1', '::1', '::'],
      ['10.0.0.256', '010.0.0.1', '1.2.3', '1:2:3:4:5:6:7', ':::', 'a', '1::2::3'],
    ],
    ['port', ['1', '65535'], ['0', '65536', '80/tcp', '']],
    ['dns-name', ['web-0', 'web.shop.svc'], ['Web', '-a', 'a..b', 'a b', 'x'.repeat(64)]],
    ['uid', ['0a1b2c3d-0000-1111-2222-333344445555'], ['0a1b2c3d', '0A1B2C3D-0000-1111-2222-333344445555']],
    ['integer', ['-3', '17'], ['1e9', '', '0x10', '1 ']],
  ]
  for (const [format, good, bad] of cases) {
    for (const value of good) t.true(allows(`{ format: ${format} }`, value), `${format} ${value}`)
    for (const value of bad) t.false(allows(`{ format: ${format} }`, value), `${format} ${value}`)
  }
})

test('variables of Kubernetes services are known by name and form', (t) => {
  const good = [
    ['KUBERNETES_SERVICE_HOST', '10.96.0.1'],
    ['KUBERNETES_SERVICE_PORT', '443'],
    ['KUBERNETES_SERVICE_PORT_HTTPS', '443'],
    ['KUBERNETES_PORT', 'tcp://10.96.0.1:443'],
    ['KUBERNETES_PORT_443_TCP', 'tcp://[fd00::1]:443'],
    ['KUBERNETES_PORT_443_TCP_PROTO', 'tcp'],
    ['KUBERNETES_PORT_443_TCP_PORT', '443'],
    ['KUBERNETES_PORT_443_TCP_ADDR', '10.96.0.1'],
  ] as const
  for (const [name, value] of good) t.true(isServiceVariable(name, value), name)
  for (const [name, value] of [
    ['LD_PRELOAD', '10.0.0.1'],
    ['KUBERNETES_SERVICE_HOST', 'evil.example'],
    ['HTTP_PROXY_PORT', 'http://10.0.0.1:80'],
    ['PATH_SERVICE_HOST', ''],
    ['KUBERNETES_PORT', 'tcp://10.96.0.1:443/x'],
    ['KUBERNETES_PORT', 'tcp://[::::]:443'],
  ] as const) {
    t.false(isServiceVariable(name, value), name)
  }
})

test('a variable of a secret cannot be set by the host at all', (t) => {
  t.false(allows('{ secret: default/db/password }', 'default/db/password'))
})

test('whatever is read as rules keeps to its limits, or is refused with the line', (t) => {
  const yaml = fc.oneof(
    fc.constantFrom(
      'X: { glob: "a*" }',
      'X: { format: ip }',
      'X: [a]',
      'X: { secret: a/b/c }',
      'X: { glob: a, format: ip }',
      '1X: a',
    ),
    fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 })).map((value) => JSON.stringify(value)),
    fc.string(),
  )
  refusesOrKeeps(t, yaml, rules, (parsed) => [...parsed.keys()].every((name) => /^[A-Za-z_]/.test(name)))
})
