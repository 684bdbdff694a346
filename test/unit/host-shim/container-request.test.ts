import test from 'ava'
import type { HostImageConfig } from '#host-shim/containerd/image-config'
import type { Bundle } from '#host-shim/node/bundle'
import { containerRequest, execRequest, UNRESOLVED_ID } from '#host-shim/node/container-request'
import { readResolvConf } from '#host-shim/node/resolv-conf'
import { askedSysctls, refuseUnsupported } from '#host-shim/node/unsupported'

const IMAGE: HostImageConfig = {
  env: ['PATH=/bin', 'A=image'],
  entrypoint: ['/bin/sh', '-c'],
  cmd: ['echo'],
  user: 'web',
  workingDir: '/srv',
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
    isTmpfs: async (path) => path.endsWith('/memory'),
  })

test('a container that is as its image says asks for nothing but its image', async (t) => {
  const request = await wish(bundle())
  t.like(request, { name: 'web', image: 'registry.test/web:1', env: [], user: '', workingDir: '', mounts: [] })
  t.is(request.args, undefined)
  t.like(request.resources, { memoryLimitBytes: 5n, cpuPeriodUs: 0n })
})

test('what a pod’s author adds is asked for: command, environment, user and directory', async (t) => {
  const given = bundle({ args: ['/bin/id'], env: ['PATH=/bin', 'A=other', 'B=1'], cwd: '/tmp', uid: 1000, gid: 2000 })
  const request = await wish(given)
  t.deepEqual(request.args, { values: ['/bin/id'] })
  t.deepEqual(request.env, ['A=other', 'B=1'])
  t.is(request.user, '1000:2000')
  t.is(request.workingDir, '/tmp')
})

test('a numeric user of the image is the image’s own, and runAsUser of a named one is not', async (t) => {
  t.is((await wish(bundle({ uid: 33, gid: 0 }), { ...IMAGE, user: '33' })).user, '')
  t.is((await wish(bundle({ uid: 33, gid: 0 }), IMAGE)).user, '33')
  t.is((await wish(bundle({ uid: 0, gid: 0 }), { ...IMAGE, user: '' })).user, '')
  t.is((await wish(bundle({ uid: 0, gid: 0 }), IMAGE)).user, '0')
})

test('an emptyDir becomes scratch or guest memory; kernel file systems, sandbox files and image volumes are the guest’s', async (t) => {
  const mount = (destination: string, source: string, type = 'bind') => ({ destination, source, type, options: ['rw'] })
  const pod = '/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir'
  const { mounts } = await wish(
    bundle({}, [
      mount('/proc', 'proc', 'proc'),
      mount('/etc/hosts', '/x/hosts'),
      mount('/data', '/x/io.containerd.grpc.v1.cri/containers/0a/volumes/1'),
      mount('/cache', `${pod}/cache`),
      mount('/fast', `${pod}/memory`),
    ]),
  )
  t.deepEqual(mounts, [
    { kind: 'scratch', destination: '/cache', readOnly: false },
    { kind: 'tmpfs', destination: '/fast', readOnly: false },
  ])
})

test('a file or directory of the host is refused by name', async (t) => {
  const hostPath = [{ destination: '/host', source: '/etc', type: 'bind', options: [] }]
  const error = await t.throwsAsync(wish(bundle({}, hostPath)), { code: 'ERR_MOUNT_UNSUPPORTED' })
  t.regex(error?.message ?? '', /\/etc on \/host/)
})

test('an exec asks for its arguments, and for more only when it differs from the first process', (t) => {
  const first = { env: ['PATH=/bin'], user: '33:0', workingDir: '/srv' }
  const process = { ...bundle().process, args: ['/bin/id'], env: ['PATH=/bin', 'TERM=xterm'], terminal: true, uid: 33 }
  t.deepEqual(execRequest(process, first), { args: ['/bin/id'], env: [], user: '', workingDir: '' })
  t.like(execRequest({ ...process, uid: 0, env: ['X=1'] }, first), { env: ['X=1'], user: '0:0' })
})

test('what guests do not have is refused by name: supplementary groups', (t) => {
  t.notThrows(() => refuseUnsupported(bundle({ gid: 5, additionalGids: [5] })))
  const refused = (message: RegExp) => ({ code: 'ERR_POD_UNSUPPORTED', message })
  t.throws(() => refuseUnsupported(bundle({ additionalGids: [0, 2000] })), refused(/2000/))
})

test('kernel settings are asked for, but for those that containerd gives to every pod', (t) => {
  const ofContainerd = { 'net.ipv4.ip_unprivileged_port_start': '0', 'net.ipv4.ping_group_range': '0 2147483647' }
  t.deepEqual(askedSysctls(ofContainerd), [])
  t.deepEqual(askedSysctls({ ...ofContainerd, 'net.ipv4.ip_unprivileged_port_start': '80', 'kernel.msgmax': '1' }), [
    { name: 'net.ipv4.ip_unprivileged_port_start', value: '80' },
    { name: 'kernel.msgmax', value: '1' },
  ])
})

test('a container that shares processes with others asks for it', async (t) => {
  t.false((await wish(bundle())).sharesProcesses)
  t.true((await wish({ ...bundle(), sharesProcesses: true })).sharesProcesses)
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
