/** An attested pod through containerd: platform tpm, a policy that `caisson policy generate` made of its YAML, the tenant's own verifier. */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { gunzipSync } from 'node:zlib'
import { create } from '@bufbuild/protobuf'
import test, { type ExecutionContext } from 'ava'
import { parse, parseDocument } from 'yaml'
import { PLACEHOLDER_IMAGE } from '#host-shim/containerd/placeholder'
import { parseInitdata } from '#protocol/initdata'
import { writeImageLayout } from '#tools/nginx-image/layout'
import { shellLayers } from '../component/guest/shell-image.ts'
import { KeyValueSchema } from '../fixtures/cri/gen/cri_pb.ts'
import { RESOURCES, startTpmNode } from '../fixtures/kubernetes/attested.ts'
import { PodFolder, writeVolume } from '../fixtures/kubernetes/volume-folder.ts'
import { filesWith, processesWith } from './fixtures/node-search.ts'
import { formsOf, Search } from './fixtures/search.ts'
import { IMAGE_POLICY, REGISTRY_NAME, Tenant, VERIFIER_NAME } from './fixtures/tenant.ts'

const DEPLOYMENT = (repository: string): string => `# The shop.
apiVersion: apps/v1
kind: Deployment
metadata: { name: shop }
spec:
  selector: { matchLabels: { app: shop } }
  template:
    metadata: { labels: { app: shop } }
    spec:
      automountServiceAccountToken: false
      runtimeClassName: caisson
      containers:
        - name: web
          image: ${repository}/web:1
          env: [{ name: MODE, value: production }]
          readinessProbe: { exec: { command: [/bin/sh, -c, exit 0] } }
          securityContext: { seccompProfile: { type: RuntimeDefault }, capabilities: { drop: [ALL] } }
          volumeMounts: [{ name: settings, mountPath: /etc/app }, { name: cache, mountPath: /cache }]
        - name: unsigned
          image: ${repository}/unsigned:1
      volumes:
        - { name: settings, configMap: { name: settings } }
        - { name: cache, emptyDir: { sizeLimit: 8Mi } }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: settings }
data: { app.yaml: "mode: fixed" }
`

/** Beside what the YAML says: a container whose image is sealed, and one with an encrypted volume. */
function withMore(policy: string, image: string): string {
  const document = parseDocument(policy)
  const add = (list: string, entry: object): void => document.addIn([list], document.createNode(entry))
  add('volumes', { name: 'db', kind: 'luks', key: 'default/keys/db', format: 'empty', gid: 2000 })
  add('containers', { name: 'one', sealedImage: SEALED_REFERENCE, logs: 'allow' })
  add('containers', {
    name: 'keeper',
    image,
    args: ['/bin/sh', '-c', KEEP],
    logs: 'allow',
    devices: [{ volume: 'db', path: '/dev/db' }],
    mounts: [{ volume: 'db', path: '/db' }],
  })
  return document.toString({ lineWidth: 0 })
}

/** What a tenant does before the pod is applied. The initdata that the YAML then carries holds this policy. */
async function generated(t: ExecutionContext, tenant: Tenant, yaml: string): Promise<string> {
  writeFileSync(tenant.path('shop.yaml'), yaml)
  const port = new URL(tenant.verifier.url).port
  const ca = tenant.path('ca.pem')
  const words = ['policy', 'generate', '-f', tenant.path('shop.yaml'), '--logs', '-o', tenant.path('policy.yaml')]
  const registry = ['--ca', ca, '--add-host', `${REGISTRY_NAME}:127.0.0.1`]
  const verifier = ['--verifier-url', `https://${VERIFIER_NAME}:${port}`, '--verifier-ca', ca]
  const more = ['--registry-ca', ca, '--image-policy', IMAGE_POLICY, '--inject', tenant.path('injected.yaml')]
  await promisify(execFile)(process.execPath, [MAIN, ...words, ...registry, ...verifier, ...more])
  const [workload = ''] = readFileSync(tenant.path('injected.yaml'), 'utf8').split('\n---\n')
  const injected = parse(workload) as Injected
  const annotation = injected.spec.template.metadata.annotations['caisson.dev/initdata'] ?? ''
  const policy = readFileSync(tenant.path('policy.yaml'), 'utf8')
  t.is(parseInitdata(gunzipSync(Buffer.from(annotation, 'base64'))).policyYaml, policy)
  return policy
}

/** Under the id that the host shows, the tenant reads the reason at its verifier, with what was asked. */
async function toldToTenant(t: ExecutionContext, tenant: Tenant, id = ''): Promise<void> {
  for (const deadline = Date.now() + 120_000; ; await new Promise((resolve) => setTimeout(resolve, 200))) {
    const [record] = await tenant.admin.explain(id).catch(() => [])
    if (record === undefined && Date.now() < deadline) continue
    t.like(record, { id, stage: 'guest', code: 'ERR_POLICY_DENIED' })
    const [check] = record?.checks ?? []
    t.deepEqual([check?.claim, check?.found], ['containers.web.args', '["sh"]'])
    t.like(JSON.parse(record?.facts['request-case'] ?? '{}'), { name: 'web' })
    return
  }
}

function mount(containerPath: string, hostPath: string, readonly = false) {
  return { $typeName: 'runtime.v1.Mount' as const, containerPath, hostPath, readonly }
}

interface Injected {
  readonly spec: {
    readonly template: { readonly metadata: { readonly annotations: Readonly<Record<string, string>> } }
  }
}

const MAIN = fileURLToPath(new URL('../../cli/caisson.mjs', import.meta.url))
const SEALED_REFERENCE = 'default/images/one'
const tag = `canary${randomBytes(12).toString('hex')}`
const SERVE = 'cat /etc/app/app.yaml 2>/dev/null; echo served; while :; do sleep 1; done'
const PLAINTEXT = 'what the disk of the host never shows'
const KEEP = `ls -A /db; cat /db/kept 2>/dev/null; echo '${PLAINTEXT}' > /db/kept; stat -c '%a %g' /db; echo kept`

test.serial(
  'a pod of platform tpm attests, what it was not registered for is refused, and an image with a sealed reference is unknown to its node',
  async (t) => {
    const tenant = await Tenant.start()
    t.teardown(() => tenant[Symbol.asyncDispose]())
    const layout = (name: string): string => {
      const config = { Cmd: ['/bin/sh', '-c', SERVE], Env: [`CANARY=${tag}${name}`] }
      writeImageLayout(tenant.path(name), { layers: shellLayers(), config })
      return tenant.path(name)
    }
    const image = await tenant.push(layout('web'), 'team/web', tenant.signingKey.privatePem)
    const sealed = await tenant.push(layout('sealed'), `team/${tag}`, tenant.signingKey.privatePem)
    await tenant.admin.putResource(SEALED_REFERENCE, Buffer.from(`${sealed}\n`))
    const unsigned = await tenant.push(layout('unsigned'), 'team/unsigned', undefined)
    const pause = await tenant.push(layout('pause'), 'pause', undefined)
    writeFileSync(tenant.path('ca.pem'), tenant.ca.certificatePem)
    const yaml = await generated(t, tenant, DEPLOYMENT(tenant.repository('team')))
    const policy = withMore(yaml, image)
    const initdata = tenant.initdata(policy)
    await tenant.expect(initdata)
    await tenant.admin.putResource('default/keys/db', randomBytes(64))
    const { containerd, kubelet } = await startTpmNode(t, tenant, {
      pauseImage: pause,
      verifierPort: Number(new URL(tenant.verifier.url).port),
      registryPort: Number(tenant.registryHost.split(':').at(-1)),
    })
    await kubelet.pull(image)
    await kubelet.pull(unsigned)
    const file = tenant.path('disk')
    const disk = new PodFolder(containerd.path('kubelet'), 'uid-attested').disk(t, 'pv', file, 64 * 1024 * 1024)
    new PodFolder(containerd.path('kubelet'), 'uid-again').attach('pv', disk)
    const device = {
      $typeName: 'runtime.v1.Device' as const,
      containerPath: '/dev/db',
      hostPath: disk,
      permissions: 'rwm',
    }
    const keep = { command: ['/bin/sh', '-c', KEEP], devices: [device] }
    const pod = await kubelet.runPod({ name: 'attested', initdata, linux: { resources: RESOURCES } })
    const host = new PodFolder(containerd.path('kubelet'), 'uid-attested')
    const [settings, cache] = [host.volume('configmap', 'settings'), host.volume('empty-dir', 'cache')]
    writeVolume(settings, 'v1', { 'app.yaml': 'mode: fixed' })
    const mounts = [mount('/etc/app', settings, true), mount('/cache', cache)]
    const envs = (value: string) => [create(KeyValueSchema, { key: 'MODE', value })]
    const code = /ERR_POLICY_DENIED.*[0-9a-f]{16}/
    const denied = await t.throwsAsync(pod.run('web', image, { args: ['sh'] }), { message: code })
    await toldToTenant(t, tenant, /[0-9a-f]{16}/.exec(String(denied?.message).split('ERR_POLICY_DENIED')[1] ?? '')?.[0])
    await t.throwsAsync(pod.run('web', image, { attempt: 1, envs: envs('debug') }), { message: code })
    const web = await pod.run('web', image, { attempt: 2, envs: envs('production'), mounts })
    await web.logged(/served/)
    t.regex(web.log().join('\n'), /mode: fixed/)
    await t.throwsAsync(web.exec(['/bin/sh', '-c', 'exit 1']), { message: /ERR_POLICY_DENIED/ }, 'another command')
    t.is((await web.exec(['/bin/sh', '-c', 'exit 0'])).exitCode, 0, 'its probe')
    await t.throwsAsync(pod.run('unsigned', unsigned), { message: /ERR_IMAGE_UNSIGNED/ })

    const one = await pod.run('one', PLACEHOLDER_IMAGE)
    await one.logged(/served/)
    // The configuration of an image that the pod names is on the node; of the sealed one nothing is, not even its name.
    t.true(filesWith(new Search(formsOf(`${tag}web`)), containerd.folder, `${tag}web`).length > 0)
    for (const secret of [`${tag}sealed`, `team/${tag}`]) {
      const search = new Search(formsOf(secret))
      t.deepEqual([...filesWith(search, containerd.folder, secret), ...processesWith(search, containerd)], [])
    }
    const keeper = await pod.run('keeper', image, keep)
    t.is((await keeper.exited()).exitCode, 0)
    t.deepEqual(keeper.log(), ['stdout F 2777 2000', 'stdout F kept'])
    await pod.remove()

    // Another guest with the same key finds what was kept; the host has the disk, and never saw it.
    const again = await kubelet.runPod({ name: 'again', initdata, linux: { resources: RESOURCES } })
    const reader = await again.run('keeper', image, keep)
    t.is((await reader.exited()).exitCode, 0)
    t.deepEqual(reader.log().slice(0, 2), ['stdout F kept', `stdout F ${PLAINTEXT}`])
    await again.remove()
    const bytes = readFileSync(disk)
    t.is(bytes.subarray(0, 6).toString('hex'), '4c554b53babe')
    t.false(bytes.includes(PLAINTEXT))

    const other = tenant.initdata(policy.replace('logs: allow', 'logs: none'))
    await t.throwsAsync(kubelet.runPod({ name: 'other', initdata: other, linux: { resources: RESOURCES } }), {
      message: /ERR_PCR_MISMATCH/,
    })
  },
)
