import test from 'ava'
import fc from 'fast-check'
import { parseWorkloadPolicy } from '#policies/workload'
import { MalformedError } from '#protocol/errors'

const DIGEST = `sha256:${'ab'.repeat(32)}`
const MINIMAL = `apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: web
    image: registry.test:5000/nginx@${DIGEST}
`

function refusal(text: string): string {
  try {
    parseWorkloadPolicy(text)
  } catch (error) {
    if (error instanceof MalformedError && error.code === 'ERR_POLICY_MALFORMED') return error.message
    throw error
  }
  return 'accepted'
}

test('a policy that names only an image denies everything else', (t) => {
  const [web] = parseWorkloadPolicy(MINIMAL).containers
  t.is(web?.repository, 'registry.test:5000/nginx')
  t.is(web?.digest, DIGEST)
  t.deepEqual([web?.logs, web?.terminal, web?.stdin, web?.max], [false, false, false, 1])
  t.deepEqual([web?.exec, web?.ports, web?.mounts, web?.secrets], [[], [], [], []])
})

test('a policy without containers is refused, because it would admit nothing', (t) => {
  t.regex(refusal('apiVersion: caisson/v1\nkind: WorkloadPolicy\ncontainers: []\n'), /containers is empty/)
})

test('an unknown key is refused with its line', (t) => {
  t.is(refusal(`${MINIMAL}    privileged: true\n`), 'policy line 6: containers[0].privileged is not a known key')
})

test('an image without a digest is refused', (t) => {
  t.regex(refusal(MINIMAL.replace(`@${DIGEST}`, ':latest')), /line 5: containers\[0\].image must be/)
})

test('a repeated key is refused, not resolved to one of its values', (t) => {
  t.regex(refusal(`${MINIMAL}    logs: none\n    logs: allow\n`), /line 7/)
})

test('anchors and aliases are refused', (t) => {
  t.regex(refusal(`${MINIMAL}    args: &a ["x"]\n`), /anchor, alias or tag/)
})

test('a number where text is expected is refused with a hint to quote it', (t) => {
  const error = t.throws(() => parseWorkloadPolicy(`${MINIMAL}    env: { N: 1 }\n`), { instanceOf: MalformedError })
  t.regex(error?.hint ?? '', /Quote/)
})

test('a secret path that leaves its place is refused', (t) => {
  const secret = (path: string): string => `${MINIMAL}    secrets: [{ resource: default/tls/key, path: ${path} }]\n`
  t.is(refusal(secret('/run/secrets/key')), 'accepted')
  for (const path of ['relative', '/a/../b', '//a', '/a/', '/./a']) t.regex(refusal(secret(path)), /absolute path/)
})

test('two rules of the same name are refused', (t) => {
  t.regex(refusal(`${MINIMAL}  - name: web\n    image: registry.test:5000/nginx@${DIGEST}\n`), /repeats the name/)
})

test('no text makes the parser fail with anything but its own error', (t) => {
  fc.assert(
    fc.property(fc.string({ maxLength: 300 }), (text) => {
      refusal(text)
    }),
  )
  fc.assert(
    fc.property(fc.nat(MINIMAL.length), fc.string({ maxLength: 8 }), (at, insert) => {
      refusal(MINIMAL.slice(0, at) + insert + MINIMAL.slice(at))
    }),
  )
  t.pass()
})

test('containers that wait for themselves or for nobody are refused with the circle', (t) => {
  const container = (name: string, requires: string) =>
    `  - { name: ${name}, image: "r.test/x@sha256:${'0'.repeat(64)}", requires: [${requires}] }\n`
  const policy = (text: string) => refusal(`apiVersion: caisson/v1\nkind: WorkloadPolicy\ncontainers:\n${text}`)
  t.regex(policy(container('a', 'b') + container('b', 'c') + container('c', 'a')), /requires itself: a → b → c → a/)
  t.regex(policy(container('a', 'z')), /requires "z", which is no container here/)
})

test('a policy in which every container requires all others above it is read at once', (t) => {
  const names = Array.from({ length: 64 }, (_, index) => `c${index}`)
  const containers = names.map(
    (name, index) =>
      `  - { name: ${name}, image: "r.test/x@sha256:${'0'.repeat(64)}", requires: [${names.slice(0, index).join(', ')}] }`,
  )
  const { containers: read } = parseWorkloadPolicy(
    `apiVersion: caisson/v1\nkind: WorkloadPolicy\ncontainers:\n${containers.join('\n')}\n`,
  )
  t.is(read.at(-1)?.requires.length, 63)
})
