/**
 * What three releases of containerd write for the same pod and container (recorded by
 * test/fixtures/kubernetes/record-specs-main.ts) is one and the same request to the guest.
 */
import { readFileSync } from 'node:fs'
import test from 'ava'
import { ANNOTATION } from '#host-shim/node/annotations'
import { parseBundle } from '#host-shim/node/bundle'
import { containerRequest, mountedVolumes } from '#host-shim/node/container-request'
import { askedSysctls } from '#host-shim/node/sysctls'

const RELEASES = ['1.6', '1.7', '2'] as const
const FOLDER = new URL('../../fixtures/kubernetes/specs/', import.meta.url)
/** As the recorded image's configuration says. */
const IMAGE = {
  env: ['A=image'],
  entrypoint: ['/bin/sh', '-c'],
  cmd: ['echo out; echo err >&2; exit 7'],
  user: 'web',
  workingDir: '',
  chainId: '',
}

const bundleOf = (release: string, kind: 'sandbox' | 'container') =>
  parseBundle(readFileSync(new URL(`${release}-${kind}.json`, FOLDER), 'utf8'))

async function requestOf(release: string) {
  const bundle = bundleOf(release, 'container')
  return containerRequest({
    containerId: 'web',
    bundle,
    image: IMAGE,
    hostname: bundleOf(release, 'sandbox').hostname,
    terminal: false,
    stdin: false,
    volumes: await mountedVolumes(bundle.mounts, async () => false),
    disks: [],
  })
}

test('bundles that containerd 1.6, 1.7 and 2 wrote for one container are one and the same request', async (t) => {
  const [first, ...others] = await Promise.all(RELEASES.map(requestOf))
  t.like(first, {
    name: 'web',
    args: { values: ['/bin/sleep', '60'] },
    env: ['MODE=production'],
    user: '1000:2000',
    workingDir: '/tmp',
    mounts: [{ kind: 'scratch', destination: '/data', readOnly: false, volume: 'data' }],
    sharesProcesses: false,
    resources: {
      memoryLimitBytes: 128n << 20n,
      cpuQuotaUs: 50_000n,
      cpuPeriodUs: 100_000n,
      cpuShares: 512n,
      pidsLimit: 0n,
    },
  })
  for (const other of others) t.deepEqual(other, first)
})

test('bundles that containerd 1.6, 1.7 and 2 wrote for one pod are one and the same machine', (t) => {
  for (const release of RELEASES) {
    const { hostname, annotations, sysctls, networkNamespace } = bundleOf(release, 'sandbox')
    t.is(hostname, 'recorded', release)
    t.truthy(networkNamespace, release)
    t.deepEqual(askedSysctls(sysctls), [{ name: 'net.core.somaxconn', value: '1024' }], release)
    t.like(
      annotations,
      {
        [ANNOTATION.containerType]: 'sandbox',
        [ANNOTATION.podName]: 'recorded',
        [ANNOTATION.podNamespace]: 'default',
        [ANNOTATION.initdata]: 'aW5pdGRhdGE=',
        [ANNOTATION.sandboxMemory]: String(512 << 20),
        [ANNOTATION.sandboxCpuQuota]: '100000',
        [ANNOTATION.sandboxCpuPeriod]: '100000',
      },
      release,
    )
  }
})
