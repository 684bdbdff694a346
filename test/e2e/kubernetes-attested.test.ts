/** An attested pod through containerd: platform tpm, initdata from the pod's annotation, the tenant's own verifier. */
import { writeFileSync } from 'node:fs'
import test from 'ava'
import { writeImageLayout } from '#tools/nginx-image/layout'
import { shellLayers } from '../component/guest/shell-image.ts'
import { TestContainerd } from '../fixtures/kubernetes/containerd.ts'
import { Kubelet } from '../fixtures/kubernetes/kubelet.ts'
import { startNetwork } from '../fixtures/kubernetes/network.ts'
import { Tenant, VCPUS } from './fixtures/tenant.ts'

const SERVE = 'echo served; while :; do sleep 1; done'

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
containers:
  - name: web
    image: ${image}
    logs: allow
  - name: unsigned
    image: ${unsigned}
`
  const initdata = tenant.initdata(policy)
  await tenant.expect(initdata)
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
  const pod = await kubelet.runPod({ name: 'attested', initdata, linux: { resources } })
  const web = await pod.run('web', image)
  await web.logged(/served/)
  await t.throwsAsync(pod.run('unsigned', unsigned), { message: /ERR_IMAGE_UNSIGNED/ })
  await pod.remove()

  const other = tenant.initdata(policy.replace('logs: allow', 'logs: none'))
  await t.throwsAsync(kubelet.runPod({ name: 'other', initdata: other, linux: { resources } }), {
    message: /ERR_VERIFIER_REFUSED/,
  })
})
