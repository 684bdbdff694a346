/** An attested pod through containerd: platform tpm, initdata from the pod's annotation, the tenant's own verifier. */
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import test from 'ava'
import { writeImageLayout } from '#tools/nginx-image/layout'
import { shellLayers } from '../component/guest/shell-image.ts'
import { TestContainerd } from '../fixtures/kubernetes/containerd.ts'
import { Kubelet } from '../fixtures/kubernetes/kubelet.ts'
import { startNetwork } from '../fixtures/kubernetes/network.ts'
import { PodFolder } from '../fixtures/kubernetes/volume-folder.ts'
import { Tenant, VCPUS } from './fixtures/tenant.ts'

const SERVE = 'echo served; while :; do sleep 1; done'
const PLAINTEXT = 'what the disk of the host never shows'
const KEEP = `ls -A /db; cat /db/kept 2>/dev/null; echo '${PLAINTEXT}' > /db/kept; stat -c '%a %g' /db; echo kept`

test.serial('a pod of platform tpm attests, and what it was not registered for is refused', async (t) => {
  const tenant = await Tenant.start()
  t.teardown(() => tenant[Symbol.asyncDispose]())
  const layout = (name: string): string => {
    writeImageLayout(tenant.path(name), { layers: shellLayers(), config: { Cmd: ['/bin/sh', '-c', SERVE] } })
    return tenant.path(name)
  }
  const image = await tenant.push(layout('web'), 'team/web', tenant.signingKey.privatePem)
  const unsigned = await tenant.push(layout('unsigned'), 'team/unsigned', undefined)
  const pause = await tenant.push(layout('pause'), 'pause', undefined)
  const policy = `
apiVersion: caisson/v1
kind: WorkloadPolicy
volumes:
  - { name: db, kind: luks, key: default/keys/db, format: empty, gid: 2000 }
containers:
  - name: keeper
    image: ${image}
    args: [/bin/sh, -c, ${JSON.stringify(KEEP)}]
    logs: allow
    devices: [{ volume: db, path: /dev/db }]
    mounts: [{ volume: db, path: /db }]
  - name: web
    image: ${image}
    logs: allow
  - name: unsigned
    image: ${unsigned}
`
  const initdata = tenant.initdata(policy)
  await tenant.expect(initdata)
  await tenant.admin.putResource('default/keys/db', randomBytes(64))
  const ports = [tenant.registryHost, new URL(tenant.verifier.url).host].map((host) => Number(host.split(':').at(-1)))
  writeFileSync(tenant.path('ca.pem'), tenant.ca.certificatePem)
  const { namespace } = await startNetwork(t, { folder: tenant.directory, ports })
  const containerd = await TestContainerd.start(t, {
    folder: tenant.path('c'),
    namespace,
    registry: { host: tenant.registryHost, port: ports[0] ?? 0, caFile: tenant.path('ca.pem') },
    pauseImage: pause,
    guestImages: [`${tenant.registryHost}/team/`],
    daemon: ['--platform', 'tpm', '--tpm-ca', tenant.path('tpm-ca')],
  })
  const kubelet = new Kubelet(t, containerd)
  await kubelet.pull(image)
  await kubelet.pull(unsigned)
  const resources = {
    cpuQuota: BigInt(VCPUS) * 100_000n,
    cpuPeriod: 100_000n,
    memoryLimitInBytes: 512n * 1024n * 1024n,
  }
  const file = tenant.path('disk')
  const disk = new PodFolder(containerd.path('kubelet'), 'uid-attested').disk(t, 'pv', file, 64 * 1024 * 1024)
  new PodFolder(containerd.path('kubelet'), 'uid-again').attach('pv', disk)
  const keep = (hostPath: string) => ({
    command: ['/bin/sh', '-c', KEEP],
    devices: [{ $typeName: 'runtime.v1.Device' as const, containerPath: '/dev/db', hostPath, permissions: 'rwm' }],
  })
  const pod = await kubelet.runPod({ name: 'attested', initdata, linux: { resources } })
  const web = await pod.run('web', image)
  await web.logged(/served/)
  await t.throwsAsync(pod.run('unsigned', unsigned), { message: /ERR_IMAGE_UNSIGNED/ })
  const keeper = await pod.run('keeper', image, keep(disk))
  t.is((await keeper.exited()).exitCode, 0)
  t.deepEqual(keeper.log(), ['stdout F 2777 2000', 'stdout F kept'])
  await pod.remove()

  // Another guest with the same key finds what was kept; the host has the disk, and never saw it.
  const again = await kubelet.runPod({ name: 'again', initdata, linux: { resources } })
  const reader = await again.run('keeper', image, keep(disk))
  t.is((await reader.exited()).exitCode, 0)
  t.deepEqual(reader.log().slice(0, 2), ['stdout F kept', `stdout F ${PLAINTEXT}`])
  await again.remove()
  const bytes = readFileSync(file)
  t.is(bytes.subarray(0, 6).toString('hex'), '4c554b53babe')
  t.false(bytes.includes(PLAINTEXT))

  const other = tenant.initdata(policy.replace('logs: allow', 'logs: none'))
  await t.throwsAsync(kubelet.runPod({ name: 'other', initdata: other, linux: { resources } }), {
    message: /ERR_VERIFIER_REFUSED/,
  })
})
