/** What a policy can say in more than one way: the tenant's options, or a marked choice. */
import test from 'ava'
import { parseKubernetesFiles } from '#policies/generate/kubernetes-objects'
import { generatePolicy } from '#policies/generate/pod'
import type { KeySigner } from '#policies/image-rule'
import { parseWorkloadPolicy } from '#policies/workload'
import { DIGEST, image, pod } from './generated.ts'

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
  // Calls of other machines.
  'deny-other.json': {
    defaultAction: 'SCMP_ACT_ALLOW',
    syscalls: [{ names: ['socketcall', 'arm_sync_file_range'], action: 'SCMP_ACT_ERRNO' }],
  },
  'allow-other.json': {
    defaultAction: 'SCMP_ACT_ERRNO',
    syscalls: [{ names: ['socketcall'], action: 'SCMP_ACT_ALLOW' }],
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
  t.deepEqual(rule(local('deny-other.json')), { kind: 'guest' }, 'of which this machine has none')
  for (const profile of [
    local('absent.json'),
    local('allow-other.json'),
    local('log.json'),
    local('arguments.json'),
    security({ type: 'New' }),
  ]) {
    t.deepEqual(
      generated(profile).choices.map(({ path }) => path),
      ['containers[0].seccomp'],
    )
  }
})

test('with a key of signers an image without a digest is its repository, and one with a digest stays pinned', (t) => {
  const signed = (container: object, signedBy: KeySigner, offline = false) => {
    const objects = parseKubernetesFiles([{ name: 'p', text: pod(container) }])
    const [template] = objects.templates
    if (template === undefined) throw new Error('no pod')
    return generatePolicy(template, objects, { image: offline ? () => undefined : image, logs: false, signedBy })
  }
  const rule = (...of: Parameters<typeof signed>) => parseWorkloadPolicy(signed(...of).yaml).containers[0]
  const pem = '-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n'
  const release: KeySigner = { kind: 'key', resource: 'default/keys/release' }
  for (const offline of [false, true]) {
    const { repository, digest: pinned, signedBy } = rule({}, release, offline) ?? {}
    t.deepEqual([repository, pinned], ['registry.test/web', ''])
    t.deepEqual(signedBy, [release])
  }
  t.deepEqual(rule({}, { kind: 'key-data', pem })?.signedBy, [{ kind: 'key-data', pem }])
  const already = rule({ image: `registry.test/web@${DIGEST}` }, release, true)
  t.deepEqual([already?.digest, already?.signedBy], [DIGEST, undefined])
  t.deepEqual(
    signed({ image: 'web' }, release, true).choices.map(({ path }) => path),
    ['containers[0].image'],
  )
})
