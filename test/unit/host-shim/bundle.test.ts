import test from 'ava'
import fc from 'fast-check'
import { parseHostImageConfig } from '#host-shim/containerd/image-config'
import { parseBlock } from '#host-shim/node/blocks'
import { parseBundle, parseBundleProcess, parseLinuxResources } from '#host-shim/node/bundle'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

const PROCESS = {
  terminal: true,
  user: { uid: 33, gid: 44 },
  args: ['/bin/sh'],
  env: ['A=1'],
  cwd: '/srv',
}
const PROCESS_READ = {
  terminal: true,
  uid: 33,
  gid: 44,
  additionalGids: [],
  args: ['/bin/sh'],
  env: ['A=1'],
  cwd: '/srv',
}
const CONFIG = JSON.stringify({
  ociVersion: '1.0.2',
  hostname: 'web',
  process: PROCESS,
  mounts: [{ destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid'] }],
  annotations: { 'io.kubernetes.cri.container-type': 'sandbox' },
  linux: {
    resources: { memory: { limit: 1024 }, cpu: { quota: -1, period: 100_000, shares: 2 }, pids: { limit: 7 } },
    devices: [{ path: '/dev/db', type: 'b', major: 7, minor: 3, fileMode: 432 }],
    namespaces: [{ type: 'pid' }, { type: 'network', path: '/run/netns/a' }],
  },
})

test('a bundle says what a guest is told: process, mounts, annotations, limits and network', (t) => {
  const bundle = parseBundle(CONFIG)
  t.like(bundle, { hostname: 'web', networkNamespace: '/run/netns/a' })
  t.deepEqual(bundle.devices, [{ path: '/dev/db', type: 'b', number: '7:3' }])
  t.deepEqual(bundle.process, { ...PROCESS_READ })
  t.deepEqual(bundle.resources, { memoryBytes: 1024n, cpuQuotaUs: 0n, cpuPeriodUs: 100_000n, cpuShares: 2n, pids: 7n })
})

test('a bundle that is damaged is refused or has its form', (t) => {
  refusesOrKeeps(
    t,
    damaged(CONFIG),
    parseBundle,
    ({ process, annotations, mounts, devices }) =>
      devices.every(({ number }) => /^[0-9]+:[0-9]+$/.test(number)) &&
      process.args.every((word) => typeof word === 'string') &&
      Object.values(annotations).every((value) => typeof value === 'string') &&
      mounts.every(({ options }) => Array.isArray(options)),
  )
})

test('the process of an exec that is damaged is refused or has its form', (t) => {
  refusesOrKeeps(
    t,
    damaged(JSON.stringify(PROCESS)).map((text) => new TextEncoder().encode(text)),
    parseBundleProcess,
    ({ args, uid }) => args.every((word) => typeof word === 'string') && Number.isInteger(uid),
  )
})

test("containerd's copy of an image configuration that is damaged is refused or has its form", (t) => {
  const config = { Env: ['A=1'], Entrypoint: ['/a'], Cmd: ['b'], User: 'web', WorkingDir: '/srv' }
  const good = { config, rootfs: { type: 'layers', diff_ids: ['sha256:a', 'sha256:b', 'sha256:c'] } }
  t.deepEqual(parseHostImageConfig(good), {
    env: ['A=1'],
    entrypoint: ['/a'],
    cmd: ['b'],
    user: 'web',
    workingDir: '/srv',
    // sha256("sha256:a sha256:b"), and of that and " sha256:c".
    chainId: 'sha256:dee159b33409cefa3f6eda71539f006014283e9d9130c18a1dea7bd8a33c9b1b',
  })
  t.is(parseHostImageConfig({ rootfs: { diff_ids: ['sha256:a'] } }).chainId, 'sha256:a')
  t.like(parseHostImageConfig({}), { user: '', env: [], chainId: '' })
  refusesOrKeeps(
    t,
    fc.oneof(fc.jsonValue(), fc.record({ config: fc.jsonValue(), rootfs: fc.jsonValue() })),
    parseHostImageConfig,
    ({ cmd }) => cmd.every((word) => typeof word === 'string'),
  )
})

test('the first words of a connection to the daemon are a verb and names with values, or are refused', (t) => {
  const good = 'start\nid abc\nnamespace k8s.io\nbundle /run/a b'
  const { verb, fields } = parseBlock(good)
  t.is(verb, 'start')
  t.is(fields.get('bundle'), '/run/a b')
  t.throws(() => parseBlock('start\nid a\nid b'), { code: 'ERR_NODE_BLOCK' })
  refusesOrKeeps(t, damaged(good), parseBlock, (block) => /^[a-z-]+$/.test(block.verb))
})

test('the limits of an update that are damaged are refused or are whole numbers', (t) => {
  const good = JSON.stringify({ memory: { limit: 1024 }, cpu: { shares: 2 } })
  const bytes = (text: string) => new TextEncoder().encode(text)
  t.like(parseLinuxResources(bytes(good)), { memoryBytes: 1024n, cpuShares: 2n, pids: 0n })
  refusesOrKeeps(t, damaged(good).map(bytes), parseLinuxResources, ({ memoryBytes }) => memoryBytes >= 0n)
})
