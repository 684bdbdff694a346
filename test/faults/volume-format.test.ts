/** A guest that is killed while it formats the encrypted volume of its pod. */
import { randomBytes } from 'node:crypto'
import { closeSync, openSync, readSync, writeFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import test from 'ava'
import { writeImageLayout } from '#tools/nginx-image/layout'
import { shellLayers } from '../component/guest/shell-image.ts'
import { Tenant, VCPUS } from '../e2e/fixtures/tenant.ts'
import { TestContainerd } from '../fixtures/kubernetes/containerd.ts'
import { Kubelet } from '../fixtures/kubernetes/kubelet.ts'
import { startNetwork } from '../fixtures/kubernetes/network.ts'
import { kill } from '../fixtures/kubernetes/victims.ts'
import { PodFolder } from '../fixtures/kubernetes/volume-folder.ts'

/** Large enough for the file system to take a while. */
const DISK_BYTES = 1024 * 1024 * 1024
const UNFINISHED = 'caisson: this disk is being formatted'
const LUKS = 'LUKS\xba\xbe'
const KEEP = `ls -A /db; stat -c '%a %g' /db; echo kept > /db/kept; echo end`

const policyOf = (image: string): string => `apiVersion: caisson/v1
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
`

/** What the first sector of a disk begins with. */
function beginning(disk: string, length: number): string {
  const file = openSync(disk, 'r')
  try {
    const bytes = Buffer.alloc(length)
    readSync(file, bytes, 0, length, 0)
    return bytes.toString('latin1')
  } finally {
    closeSync(file)
  }
}

test('a VM that is killed while it formats a volume leaves a disk that the next one formats', async (t) => {
  t.timeout(1_800_000)
  const tenant = await Tenant.start()
  t.teardown(() => tenant[Symbol.asyncDispose]())
  const pushed = async (name: string, key: string | undefined): Promise<string> => {
    writeImageLayout(tenant.path(name), { layers: shellLayers(), config: { Cmd: ['/bin/sh'] } })
    return tenant.push(tenant.path(name), name === 'pause' ? name : `team/${name}`, key)
  }
  const image = await pushed('keeper', tenant.signingKey.privatePem)
  const pause = await pushed('pause', undefined)
  writeFileSync(tenant.path('ca.pem'), tenant.ca.certificatePem)
  const initdata = tenant.initdata(policyOf(image))
  await tenant.expect(initdata)
  await tenant.admin.putResource('default/keys/db', randomBytes(64))
  const ports = [tenant.registryHost, new URL(tenant.verifier.url).host].map((host) => Number(host.split(':').at(-1)))
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
  const resources = {
    cpuQuota: BigInt(VCPUS) * 100_000n,
    cpuPeriod: 100_000n,
    memoryLimitInBytes: 512n * 1024n * 1024n,
  }
  const disk = new PodFolder(containerd.path('kubelet'), 'uid-killed').disk(t, 'pv', tenant.path('disk'), DISK_BYTES)
  new PodFolder(containerd.path('kubelet'), 'uid-next').attach('pv', disk)
  const device = {
    $typeName: 'runtime.v1.Device' as const,
    containerPath: '/dev/db',
    hostPath: disk,
    permissions: 'rwm',
  }
  const keep = { command: ['/bin/sh', '-c', KEEP], devices: [device] }

  const killed = await kubelet.runPod({ name: 'killed', initdata, linux: { resources } })
  const refused = t.throwsAsync(killed.run('keeper', image, keep))
  while (beginning(disk, UNFINISHED.length) !== UNFINISHED) await setTimeout(5)
  await kill(containerd, 'qemu')
  await refused
  t.is(beginning(disk, UNFINISHED.length), UNFINISHED)
  await killed.remove()

  const next = await kubelet.runPod({ name: 'next', initdata, linux: { resources } })
  const keeper = await next.run('keeper', image, keep)
  t.is((await keeper.exited()).exitCode, 0)
  t.deepEqual(keeper.log(), ['stdout F 2777 2000', 'stdout F end'])
  await next.remove()
  t.is(beginning(disk, LUKS.length), LUKS)
})
