/** Policies changed in one place: the change is refused when the policy is read, or `diff` tells of it. Nothing in between. */
import { readdirSync, readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { type Document, isMap, isScalar, isSeq, type Node, parseDocument, visit } from 'yaml'
import { diffPolicies } from '#policies/diff'
import { parseKubernetesFiles } from '#policies/generate/kubernetes-objects'
import { generatePolicy } from '#policies/generate/pod'
import type { SignerRule } from '#policies/image-rule'
import { parseWorkloadPolicy, type WorkloadPolicy } from '#policies/workload'
import { MalformedError } from '#protocol/errors'

const DIGEST = `sha256:${'a'.repeat(64)}`
const VECTORS = 'test/vectors/rego/genpolicy/tests/generate/testdata'
const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
const VAULT = { version: '0.1.0', type: 'vault', provider: 'kbs', name: 'kbs:///a/b/c' }
const SEALED = `sealed.${part({ alg: 'ES256', kid: 'kbs:///a/b/key' })}.${part(VAULT)}.${'A'.repeat(86)}`

/** What the generator does not write, so that every key of the language is changed as well. */
const BY_HAND = `apiVersion: caisson/v1
kind: WorkloadPolicy
volumes:
  - { name: cache, kind: scratch, maxBytes: 8192, gid: 3 }
  - { name: settings, kind: config-map, digest: "${DIGEST}", mode: "0440", uid: 1, gid: 2 }
  - { name: raw, kind: block }
  - { name: db, kind: luks, key: a/b/c, format: empty, gid: 3 }
  - { name: podinfo, kind: downward-api, mutable: true }
dns: [10.96.0.10]
shareProcessNamespace: true
sysctls: { net.core.somaxconn: "1024" }
hostAliases: [{ address: 10.0.0.9, names: [db, cache] }]
containers:
  - name: web
    image: registry.test:5000/shop/web@${DIGEST}
    args: [serve, --port, "80"]
    env:
      A: x
      B: [x, y]
      C: { glob: "x*" }
      D: { format: dns-name }
      E: { secret: default/a/b }
      F: { sealed: default/a/key }
    serviceEnv: true
    user: "1:2"
    workingDir: /srv/x
    groups: [4, 5]
    devices: [{ volume: raw, path: /dev/raw, readOnly: true, uid: 1, gid: 2 }, { volume: db, path: /dev/db }]
    terminationMessage: /dev/termination-log
    mounts:
      - { kind: scratch, path: /d, readOnly: true, maxBytes: 4096, required: false }
      - { volume: cache, path: /c, subPath: a/b, readOnly: true }
      - { volume: settings, path: /e, required: false }
    secrets:
      - { resource: a/b/c, path: /s, mode: "0400", uid: 1, gid: 2 }
      - { sealed: ${SEALED}, key: a/b/key, path: /t }
    api: { resources: [a/b/c], token: true, evidence: true }
    identity: { path: /run/identity, names: [web.shop.example], uid: 1, gid: 2 }
    readOnlyRoot: true
    terminal: true
    stdin: true
    logs: allow
    exec: [[x, y], [z]]
    ports: [80, 8080]
    egress: [10.0.0.0/8, { to: "fd00::/8", ports: [443, 53] }]
    signals: [1]
    capabilities: [KILL, CHOWN]
    seccomp: { deny: [ptrace, syslog] }
    resources: { memory: { min: 1Mi, max: 2Gi }, cpu: { max: 500m }, pids: { max: 7 } }
    conditions: [{ name: mode, require: 'request.env.A == "x"', remedy: Set A. }]
    requires: [first]
    max: 2
  - { name: first, image: "registry.test/first@${DIGEST}", role: init }
  - name: signed
    image: registry.test/signed
    seccomp: runtime-default
    signedBy:
      - { key: default/keys/release }
      - { keyData: "-----BEGIN PUBLIC KEY-----\\nMFkw\\n-----END PUBLIC KEY-----\\n" }
      - { issuer: "https://login.example", subject: release@shop.example, trustedRoot: default/root/sigstore }
  - { name: few, image: "registry.test/few@${DIGEST}", seccomp: { allow: [execve, exit_group, read] } }
imagePolicy: { default: [{ type: reject }] }
`

function generated(): string[] {
  const files = readdirSync(VECTORS).map((name) => ({ name, text: readFileSync(`${VECTORS}/${name}`, 'utf8') }))
  const objects = parseKubernetesFiles(files)
  const image = (reference: string) => ({
    pinned: `${reference.replace(/:[^/]*$/, '')}@${DIGEST}`,
    entrypoint: ['/entry'],
  })
  return objects.templates.map((pod) => generatePolicy(pod, objects, { image, logs: true }).yaml)
}

/** Every value of a document: mappings, lists and what is in them. */
function nodesOf(document: Document): Node[] {
  const nodes: Node[] = []
  visit(document, {
    Map: (_key, node) => void nodes.push(node),
    Seq: (_key, node) => void nodes.push(node),
    Scalar: (key, node) => void (key === 'key' ? undefined : nodes.push(node)),
  })
  return nodes
}

/** Undefined where this change says nothing of this value. */
function mutate(node: Node, kind: number, at: number): true | undefined {
  if (isMap(node) || isSeq(node)) {
    if (node.items.length === 0) return undefined
    if (kind % 2 === 0) node.items.splice(at % node.items.length, 1)
    else if (isSeq(node)) node.items.push(...node.items.slice(0, 1))
    else return undefined
    return true
  }
  if (!isScalar(node)) return undefined
  const { value } = node
  if (typeof value === 'boolean') node.value = !value
  else if (typeof value === 'number') node.value = value + (kind % 2 === 0 ? 1 : -1)
  else if (typeof value === 'string') {
    const cut = at % (value.length + 1)
    node.value = kind % 2 === 0 ? `${value.slice(0, cut)}x${value.slice(cut)}` : value.slice(0, -1)
  } else return undefined
  // What the reader takes for the text: the value as it is now.
  delete node.source
  return true
}

/** What a policy decides: without lines and words for people; naming something twice allows nothing more. */
function decisions({ containers, volumes, dns, pod, ...rest }: WorkloadPolicy): unknown {
  return {
    ...rest,
    volumes: each([...volumes.values()]),
    pod: { ...pod, sysctls: each([...pod.sysctls]), hostAliases: each(pod.hostAliases) },
    dns: dns === undefined ? 'any' : each(dns.map(({ text }) => text)),
    containers: containers.map((rule) => ({
      ...rule,
      env: each([...rule.env].map(([name, value]) => [name, 'values' in value ? each(value.values) : value])),
      groups: each(rule.groups),
      devices: each(rule.devices),
      mounts: each(rule.mounts),
      secrets: each(rule.secrets),
      api: rule.api === undefined ? undefined : { ...rule.api, resources: each(rule.api.resources) },
      exec: each(rule.exec),
      ports: each(rule.ports),
      egress: rule.egress === undefined ? 'anywhere' : each(rule.egress.map(({ to, ports }) => [to, each(ports)])),
      signals: each(rule.signals),
      capabilities: each(rule.capabilities),
      seccomp: 'names' in rule.seccomp ? { ...rule.seccomp, names: each(rule.seccomp.names) } : rule.seccomp,
      // A key is the same with and without the end of its last line.
      signedBy: rule.signedBy === undefined ? undefined : each(rule.signedBy.map(trimmed)),
      requires: each(rule.requires),
      conditions: each(rule.conditions.map(({ expression }) => expression)),
    })),
  }
}

function trimmed(signer: SignerRule): SignerRule {
  return signer.kind === 'key-data' ? { ...signer, pem: signer.pem.trim() } : signer
}

function each(values: readonly unknown[]): string[] {
  return [...new Set(values.map((value) => JSON.stringify(value)))].sort()
}

test('a policy changed in any one place is refused, or diff tells of the change', (t) => {
  const texts = [...generated(), BY_HAND]
  const mutants = { refused: 0, told: 0, equal: 0 }
  fc.assert(
    fc.property(fc.nat(texts.length - 1), fc.nat(), fc.nat(1), fc.nat(), (which, place, kind, at) => {
      const text = texts[which] ?? ''
      const document = parseDocument(text)
      const nodes = nodesOf(document)
      const node = nodes[place % nodes.length]
      if (node === undefined || mutate(node, kind, at) === undefined) return
      const before = parseWorkloadPolicy(text)
      let after: WorkloadPolicy
      try {
        after = parseWorkloadPolicy(document.toString({ lineWidth: 0 }))
      } catch (error) {
        if (!(error instanceof MalformedError)) throw error
        mutants.refused++
        return
      }
      const { allowed, denied } = diffPolicies(before, after)
      if (allowed.length + denied.length > 0) mutants.told++
      else {
        t.is(JSON.stringify(decisions(after)), JSON.stringify(decisions(before)))
        mutants.equal++
      }
    }),
    { numRuns: 400 },
  )
  t.log(mutants)
  t.true(mutants.refused > 20 && mutants.told > 20)
})
