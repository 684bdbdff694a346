/** `caisson node install` on private nodes, judged by real containerds: 1.6, 1.7 and 2.x. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { parse } from 'yaml'
import { valueAt } from '#host-shim/install/toml-edit'
import { parseToml } from '#host-shim/install/toml-lines'
import type { Release } from './containerds.ts'
import { TestNode } from './node.ts'

const OPTIONS = ['--platform', 'none', '--accel', 'tcg', '--guest-image', 'registry.example/']

const NODES: readonly { readonly release: Release; readonly form: 2 | 3; readonly title: string }[] = [
  {
    release: '1.6',
    form: 2,
    title: 'containerd 1.6 runs with what node install wrote, and reports runtime and snapshotter',
  },
  {
    release: '1.7',
    form: 2,
    title: 'containerd 1.7 runs with what node install wrote, and reports runtime and snapshotter',
  },
  {
    release: '2',
    form: 3,
    title: 'containerd 2 runs with what node install wrote, and reports runtime and snapshotter',
  },
  {
    release: '2',
    form: 2,
    title: 'containerd 2 with a file of version 2 runs with what node install wrote',
  },
]

for (const { release, form, title } of NODES) {
  test.serial(title, async (t) => {
    const node = await TestNode.make(t, release, form)
    const before = node.tree()
    const installed = await node.caisson('install', ...OPTIONS)
    t.is(installed.code, 0, installed.stderr)
    await node.startDaemon()
    await node.startContainerd()
    const status = await node.status()
    t.true(status?.conditions.RuntimeReady)
    const runtimes = valueAt(status?.config, ['containerd', 'runtimes'])
    t.like(valueAt(runtimes, ['caisson']), { runtimeType: 'io.containerd.caisson.v2' })
    t.is(valueAt(runtimes, ['runc', 'runtimeType']), 'io.containerd.runc.v2')
    t.regex(node.ctr('plugins', 'ls'), /io\.containerd\.snapshotter\.v1\s+caisson\s+\S+\s+ok/)
    // The snapshotter answers through containerd: the proxy plugin reaches the daemon.
    t.regex(node.ctr('snapshots', '--snapshotter', 'caisson', 'ls'), /^KEY/)
    keepsOperatorsSettings(t, node)
    await node.stopContainerd()
    const removed = await node.caisson('uninstall')
    t.is(removed.code, 0, removed.stderr)
    // The daemon's own data is not the installation's.
    const left = node.tree().filter((line) => !/^var\/lib\/caisson\/(?:snapshots| )/.test(line))
    t.deepEqual(left, before)
    await node.startContainerd()
    t.is(valueAt((await node.status())?.config, ['containerd', 'runtimes', 'caisson']), undefined)
  })
}

test('a second installation changes nothing, and says so', async (t) => {
  const node = await TestNode.make(t, '1.6')
  t.is((await node.caisson('install', ...OPTIONS)).code, 0)
  const once = node.tree()
  const again = await node.caisson('install', ...OPTIONS)
  t.regex(again.stdout, /nothing to change/)
  t.deepEqual(node.tree(), once)
})

test('--dry-run prints the lines that would change, and changes nothing', async (t) => {
  const node = await TestNode.make(t, '1.6')
  const before = node.tree()
  const { code, stdout } = await node.caisson('install', '--dry-run', ...OPTIONS)
  t.is(code, 0)
  t.true(stdout.includes('+ runtime_type = "io.containerd.caisson.v2"'))
  t.false(stdout.includes('- '))
  t.deepEqual(node.tree(), before)
})

test('a configuration that containerd would not take over is taken back, and the node is as it was', async (t) => {
  const node = await TestNode.make(t, '1.7')
  // A later import wins over the main file: containerd reads, but ignores what was written.
  const text = readFileSync(node.config, 'utf8').replace(
    'version = 2',
    `version = 2\nimports = ["${node.path('etc/other.toml')}"]`,
  )
  writeFileSync(node.config, text)
  writeFileSync(
    node.path('etc/other.toml'),
    'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nsandbox_image = "x"\n',
  )
  const before = node.tree()
  const { code, stderr } = await node.caisson('install', ...OPTIONS)
  t.is(code, 3)
  t.regex(stderr, /ERR_CONTAINERD_IGNORES/)
  t.deepEqual(node.tree(), before)
})

test('the installed caisson runs, and the RuntimeClass is valid YAML', async (t) => {
  const node = await TestNode.make(t, '1.6')
  t.is((await node.caisson('install', ...OPTIONS)).code, 0)
  t.regex(
    execFileSync(node.path('usr/local/bin/caisson'), ['node', 'serve', '--help'], { encoding: 'utf8' }),
    /usage: caisson node serve/,
  )
  const runtimeClass: unknown = parse(readFileSync(node.path('usr/local/share/caisson/runtimeclass.yaml'), 'utf8'))
  t.like(runtimeClass, { kind: 'RuntimeClass', handler: 'caisson' })
})

test('containerd 1.6 finds the shim on its PATH, wherever programs are installed', async (t) => {
  const node = await TestNode.make(t, '1.6')
  const before = node.tree()
  t.is((await node.caisson('install', '--prefix', '/opt/caisson', ...OPTIONS)).code, 0)
  const version = execFileSync(node.path('usr/local/bin/containerd-shim-caisson-v2'), ['-v'], { encoding: 'utf8' })
  t.regex(version, /containerd-shim-caisson-v2/)
  t.is((await node.caisson('uninstall', '--prefix', '/opt/caisson')).code, 0)
  t.deepEqual(node.tree(), before)
})

test('with systemd a unit starts the daemon at boot and pods outlive it; shims only wait for it', async (t) => {
  const node = await TestNode.make(t, '1.6')
  const before = node.tree()
  t.is((await node.caisson('install', '--service', 'systemd', ...OPTIONS)).code, 0)
  const unit = node.path('etc/systemd/system/caisson-node.service')
  const verified = execFileSync('systemd-analyze', ['verify', '--man=no', unit], { encoding: 'utf8', stdio: 'pipe' })
  t.is(verified, '')
  t.true(readFileSync(unit, 'utf8').includes('KillMode=process'))
  t.true(existsSync(node.path('etc/systemd/system/multi-user.target.wants/caisson-node.service')))
  t.false(readFileSync(node.path('usr/local/etc/caisson/shim.conf'), 'utf8').includes('daemon '))
  await node.caisson('uninstall')
  t.deepEqual(node.tree(), before)
})

function keepsOperatorsSettings(t: ExecutionContext, node: TestNode): void {
  const dump = parseToml(execFileSync(node.program, ['--config', node.config, 'config', 'dump'], { encoding: 'utf8' }))
  const name = dump.version === 3 ? 'io.containerd.cri.v1.runtime' : 'io.containerd.grpc.v1.cri'
  const options = valueAt(dump, ['plugins', name, 'containerd', 'runtimes', 'runc', 'options'])
  t.is(valueAt(options, ['SystemdCgroup']), true)
  t.true(JSON.stringify(dump).includes('registry.example/pause:9'))
}
