import test from 'ava'
import type { HostImageConfig } from '#host-shim/containerd/image-config'
import type { Bundle } from '#host-shim/node/bundle'
import { containerRequest, execRequest, UNRESOLVED_ID } from '#host-shim/node/container-request'
import { readResolvConf } from '#host-shim/node/resolv-conf'
import { askedSysctls } from '#host-shim/node/sysctls'

const IMAGE: HostImageConfig = {
  env: ['PATH=/bin', 'A=image'],
  entrypoint: ['/bin/sh', '-c'],
  cmd: ['echo'],
  user: 'web',
  workingDir: '/srv',
  chainId: 'sha256:aa',
}

function bundle(changes: Partial<Bundle['process']> = {}, mounts: Bundle['mounts'] = []): Bundle {
  return {
    hostname: '',
    process: {
      args: ['/bin/sh', '-c', 'echo'],
      env: ['PATH=/bin', 'A=image', 'HOSTNAME=pod'],
      cwd: '/srv',
      terminal: false,
      uid: UNRESOLVED_ID,
      gid: 0,
      additionalGids: [],
      ...changes,
    },
    mounts,
    devices: [],
    annotations: { 'io.kubernetes.cri.container-name': 'web', 'io.kubernetes.cri.image-name': 'registry.test/web:1' },
    resources: { memoryBytes: 5n, cpuQuotaUs: 0n, cpuPeriodUs: 100_000n, cpuShares: 0n, pids: 0n },
    networkNamespace: undefined,
    sharesProcesses: false,
    sysctls: {},
  }
}

const wish = (given: Bundle, image = IMAGE) =>
  containerRequest({
    containerId: 'c1',
    bundle: given,
    image,
    hostname: 'pod',
    terminal: false,
    stdin: false,
    volumes: [],
    disks: [{ serial: 'block-0', number: '7:3' }],
  })

test('a container that is as its image says asks for nothing but its image', (t) => {
  const request = wish(bundle())
  t.like(request, { name: 'web', image: 'registry.test/web:1', env: [], user: '', workingDir: '', mounts: [] })
  t.is(request.args, undefined)
  t.like(request.resources, { memoryLimitBytes: 5n, cpuPeriodUs: 0n })
})

test('what a pod’s author adds is asked for: command, environment, user and directory', (t) => {
  const given = bundle({ args: ['/bin/id'], env: ['PATH=/bin', 'A=other', 'B=1'], cwd: '/tmp', uid: 1000, gid: 2000 })
  const request = wish(given)
  t.deepEqual(request.args, { values: ['/bin/id'] })
  t.deepEqual(request.env, ['A=other', 'B=1'])
  t.is(request.user, '1000:2000')
  t.is(request.workingDir, '/tmp')
})

test('a numeric user of the image is the image’s own, and runAsUser of a named one is not', (t) => {
  t.is(wish(bundle({ uid: 33, gid: 0 }), { ...IMAGE, user: '33' }).user, '')
  t.is(wish(bundle({ uid: 33, gid: 0 }), IMAGE).user, '33')
  t.is(wish(bundle({ uid: 0, gid: 0 }), { ...IMAGE, user: '' }).user, '')
  t.is(wish(bundle({ uid: 0, gid: 0 }), IMAGE).user, '0')
})

test('a block device of the pod is asked for by the disk that the VM has, and other devices are refused', (t) => {
  const device = (type: string, number: string) => ({ ...bundle(), devices: [{ path: '/dev/db', type, number }] })
  t.deepEqual(wish(device('b', '7:3')).devices, [{ path: '/dev/db', disk: 'block-0' }])
  const refused = { code: 'ERR_MOUNT_UNSUPPORTED', message: /^\/dev\/db is a device of the host/ }
  t.throws(() => wish(device('b', '7:4')), refused)
  t.throws(() => wish(device('c', '7:3')), refused)
})

test('groups of the pod’s volumes and supplementary ones are asked for, and not the image’s own', (t) => {
  t.deepEqual(wish(bundle({ gid: 5, additionalGids: [5, 2000, UNRESOLVED_ID, 2000] })).groups, [2000])
})

test('an exec asks for its arguments, and for more only when it differs from the first process', (t) => {
  const first = { env: ['PATH=/bin'], user: '33:0', workingDir: '/srv' }
  const process = { ...bundle().process, args: ['/bin/id'], env: ['PATH=/bin', 'TERM=xterm'], terminal: true, uid: 33 }
  t.deepEqual(execRequest(process, first), { args: ['/bin/id'], env: [], user: '', workingDir: '' })
  t.like(execRequest({ ...process, uid: 0, env: ['X=1'] }, first), { env: ['X=1'], user: '0:0' })
})

test('kernel settings are asked for, but for those that containerd gives to every pod', (t) => {
  const ofContainerd = { 'net.ipv4.ip_unprivileged_port_start': '0', 'net.ipv4.ping_group_range': '0 2147483647' }
  t.deepEqual(askedSysctls(ofContainerd), [])
  t.deepEqual(askedSysctls({ ...ofContainerd, 'net.ipv4.ip_unprivileged_port_start': '80', 'kernel.msgmax': '1' }), [
    { name: 'net.ipv4.ip_unprivileged_port_start', value: '80' },
    { name: 'kernel.msgmax', value: '1' },
  ])
})

test('a container that shares processes with others asks for it', (t) => {
  t.false(wish(bundle()).sharesProcesses)
  t.true(wish({ ...bundle(), sharesProcesses: true }).sharesProcesses)
})

test('name servers, search domains and options of a pod are told; what resolvers skip is left out', (t) => {
  const text =
    'domain x.test\nsearch a.test b.test\nnameserver 10.0.0.2\nnameserver nonsense\noptions ndots:5 edns0\n# end'
  t.deepEqual(readResolvConf(text), {
    nameservers: ['10.0.0.2'],
    searches: ['a.test', 'b.test'],
    options: ['ndots:5', 'edns0'],
  })
})
