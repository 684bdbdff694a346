import test from 'ava'
import { containerdFiles, parseContainerdConfig } from '#host-shim/install/containerd-config'
import { namedVersion, parseContainerdVersion } from '#host-shim/install/containerd-version'
import { nodeLayout } from '#host-shim/install/node-layout'
import { valueAt } from '#host-shim/install/toml-edit'
import { parseToml } from '#host-shim/install/toml-lines'
import { CaissonError } from '#protocol/errors'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

const layout = nodeLayout({ root: '/node' })
const CRI = ['plugins', 'io.containerd.grpc.v1.cri', 'containerd']
const V2_1 = { major: 2, minor: 1, text: '2.1.9' }

test('containerd tells its version in the form of each of its builds', (t) => {
  const cases = {
    'containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3\n': [1, 6],
    'containerd github.com/containerd/containerd v1.7.24 88bf19b2105c8b17560993bee28a01ddc2f97182': [1, 7],
    'containerd containerd.io 1.6.4 212e8b6fa2f44b9c21b2798135fc6fb7c53efc16': [1, 6],
    'containerd github.com/containerd/containerd/v2 2.1.9+unknown ': [2, 1],
    'containerd github.com/containerd/containerd/v2 v2.2.0-beta.1 abc': [2, 2],
  }
  for (const [output, [major, minor]] of Object.entries(cases)) t.like(parseContainerdVersion(output), { major, minor })
})

test('a program that prints something else has no version, and the operator is asked to name it', (t) => {
  for (const output of ['', 'containerd', 'podman version 5.0.0', 'containerd x 1.', 'containerd x 1.6000']) {
    t.is(t.throws(() => parseContainerdVersion(output), { instanceOf: CaissonError })?.code, 'ERR_CONTAINERD_VERSION')
  }
  refusesOrKeeps(
    t,
    damaged('containerd github.com/containerd/containerd 1.6.20~ds1 x'),
    parseContainerdVersion,
    ({ major, minor }) => Number.isInteger(major) && Number.isInteger(minor),
  )
})

test('a configuration is one of version 2 or 3 with its CRI plugin, or refused with what to do', (t) => {
  const cases = {
    'disabled_plugins = ["cri"]': 'ERR_CONTAINERD_NO_CRI',
    'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]': 'ERR_CONTAINERD_NO_CRI',
    'version = 3\ndisabled_plugins = ["io.containerd.cri.v1.images"]': 'ERR_CONTAINERD_NO_CRI',
    'root = "/x"': 'ERR_CONTAINERD_CONFIG',
    'version = 1': 'ERR_CONTAINERD_CONFIG',
    'version = "2"': 'ERR_CONTAINERD_CONFIG',
    'version = ': 'ERR_TOML',
  }
  for (const [text, code] of Object.entries(cases)) {
    t.is(t.throws(() => parseContainerdConfig(text, 'x'), { instanceOf: CaissonError })?.code, code, text)
  }
  t.deepEqual(parseContainerdConfig('# nothing yet', 'x'), { version: undefined, imports: [], snapshotter: undefined })
  refusesOrKeeps(
    t,
    damaged('version = 2\nimports = ["/a"]\n[plugins."io.containerd.grpc.v1.cri".containerd]\nsnapshotter = "zfs"\n'),
    (text) => parseContainerdConfig(text, 'x'),
    ({ version, imports }) => [undefined, 2, 3].includes(version) && imports.every((item) => typeof item === 'string'),
  )
})

test('containerd 1.6 gets one snapshotter for all runtimes, and only when images are named that it may skip', (t) => {
  const named = containerdFiles('', { version: namedVersion('1.6'), layout, snapshotter: true })
  t.is(valueAt(parseToml(named.config), [...CRI, 'snapshotter']), 'caisson')
  const none = containerdFiles('', { version: namedVersion('1.6'), layout, snapshotter: false })
  t.is(valueAt(parseToml(none.config), [...CRI, 'snapshotter']), undefined)
  t.is(valueAt(parseToml(none.config), [...CRI, 'runtimes', 'caisson', 'runtime_type']), 'io.containerd.caisson.v2')
})

test('containerd 1.7 gets a snapshotter of the runtime alone', (t) => {
  const { config, dropIn } = containerdFiles('', { version: namedVersion('1.7'), layout, snapshotter: true })
  t.is(dropIn, undefined)
  t.is(valueAt(parseToml(config), [...CRI, 'snapshotter']), undefined)
  t.is(valueAt(parseToml(config), [...CRI, 'runtimes', 'caisson', 'snapshotter']), 'caisson')
})

test('from containerd 2.1 on a file of our own is imported, in the version of the main file', (t) => {
  const node = { version: V2_1, layout, snapshotter: true }
  const old = containerdFiles('version = 2\n[grpc]\naddress = "/x"\n', node)
  t.is(valueAt(parseToml(old.dropIn ?? ''), ['version']), 2)
  t.deepEqual(valueAt(parseToml(old.config), ['imports']), [layout.containerdDropIn])
  t.is(valueAt(parseToml(old.config), ['plugins']), undefined)
  const fresh = containerdFiles('', node)
  t.is(valueAt(parseToml(fresh.config), ['version']), 3)
  t.is(valueAt(parseToml(fresh.dropIn ?? ''), ['version']), 3)
})

test('a folder that the operator imports already needs no second import', (t) => {
  const text = 'version = 3\nimports = ["/node/etc/containerd/conf.d/*.toml"]\n'
  t.is(containerdFiles(text, { version: V2_1, layout, snapshotter: true }).config, text)
})

test('containerd 1.6 with another snapshotter than overlayfs is refused, since ours could not stand in for it', (t) => {
  const text = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\nsnapshotter = "zfs"\n'
  const node = { version: namedVersion('1.6'), layout, snapshotter: true }
  t.is(t.throws(() => containerdFiles(text, node), { instanceOf: CaissonError })?.code, 'ERR_SNAPSHOTTER_TAKEN')
  t.notThrows(() => containerdFiles(text, { ...node, version: namedVersion('1.7') }))
})

test('a version that is too old, or a file that is too new for it, is refused', (t) => {
  const of = (text: string, major: number, minor: number) => () =>
    containerdFiles(text, { version: { major, minor, text: 'x' }, layout, snapshotter: false })
  t.is(t.throws(of('', 1, 5), { instanceOf: CaissonError })?.code, 'ERR_CONTAINERD_VERSION')
  t.is(t.throws(of('version = 3', 1, 7), { instanceOf: CaissonError })?.code, 'ERR_CONTAINERD_CONFIG')
})

test('paths of a node that other files could not hold are refused', (t) => {
  for (const root of ['relative', '/with space', "/quo'te", '/new\nline', `/${'long/'.repeat(20)}`]) {
    t.is(t.throws(() => nodeLayout({ root }), { instanceOf: CaissonError })?.code, 'ERR_NODE_LAYOUT', root)
  }
})
