/** An attested pod through containerd: platform tpm, initdata from the pod's annotation, the tenant's own verifier. */
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import test from 'ava'
import { PLACEHOLDER_IMAGE } from '#host-shim/containerd/placeholder'
import { writeImageLayout } from '#tools/nginx-image/layout'
import { shellLayers } from '../component/guest/shell-image.ts'
import { TestContainerd } from '../fixtures/kubernetes/containerd.ts'
import { Kubelet } from '../fixtures/kubernetes/kubelet.ts'
import { startNetwork } from '../fixtures/kubernetes/network.ts'
import { filesWith, processesWith } from './fixtures/node-search.ts'
import { formsOf, Search } from './fixtures/search.ts'
import { Tenant, VCPUS } from './fixtures/tenant.ts'

const SEALED_REFERENCE = 'default/images/one'
const tag = `canary${randomBytes(12).toString('hex')}`
const SERVE = 'echo served; while :; do sleep 1; done'

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
    const policy = `
apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: web
    image: ${image}
    logs: allow
  - name: one
    sealedImage: ${SEALED_REFERENCE}
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

    const one = await pod.run('one', PLACEHOLDER_IMAGE)
    await one.logged(/served/)
    // The configuration of an image that the pod names is on the node; of the sealed one nothing is, not even its name.
    t.true(filesWith(new Search(formsOf(`${tag}web`)), containerd.folder, `${tag}web`).length > 0)
    for (const secret of [`${tag}sealed`, `team/${tag}`]) {
      const search = new Search(formsOf(secret))
      t.deepEqual([...filesWith(search, containerd.folder, secret), ...processesWith(search, containerd)], [])
    }
    await pod.remove()

    const other = tenant.initdata(policy.replace('logs: allow', 'logs: none'))
    await t.throwsAsync(kubelet.runPod({ name: 'other', initdata: other, linux: { resources } }), {
      message: /ERR_PCR_MISMATCH/,
    })
  },
)
