/** `caisson node check` on a private node, from nothing installed to one that runs, and back. */
import { appendFileSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import type { Finding } from '#host-shim/install/check/finding'
import { TestNode } from './node.ts'

interface Checked {
  readonly code: number
  readonly ready: boolean
  readonly of: (code: string) => Finding | undefined
}

const OPTIONS = ['--platform', 'none', '--accel', 'tcg', '--guest-image', 'registry.example/']

test('each thing that a node lacks is named with what was found and what mends it, until nothing is missing', async (t) => {
  const node = await TestNode.make(t, '1.7')
  const bare = await check(t, node)
  t.is(bare.code, 1)
  t.false(bare.ready)
  for (const code of ['installation', 'containerd-config', 'containerd-cri', 'node-daemon', 'snapshotter']) {
    t.is(bare.of(code)?.status, 'missing', code)
    t.truthy(bare.of(code)?.remedy)
  }
  t.like(bare.of('containerd-version'), { status: 'ok', found: '1.7.24~ds1' })
  t.is(bare.of('network-tools')?.status, 'ok', bare.of('network-tools')?.found)
  t.is(bare.of('software-tpm')?.status, 'ok')
  t.is(bare.of('guest-image')?.status, 'ok')

  // A containerd that runs since before the installation knows nothing of it.
  await node.startContainerd()
  t.is((await node.caisson('install', ...OPTIONS)).code, 0)
  const installed = await check(t, node)
  t.is(installed.of('installation')?.status, 'ok')
  t.is(installed.of('containerd-config')?.status, 'ok')
  t.like(installed.of('containerd-cri'), { status: 'missing', found: 'runtimes runc' })
  t.is(installed.code, 1)

  await node.stopContainerd()
  await node.startDaemon()
  await node.startContainerd()
  const running = await check(t, node)
  t.is(running.of('snapshotter')?.status, 'ok')
  t.is(running.of('node-daemon')?.status, 'ok')
  // There is no CNI configuration.
  t.is(running.of('containerd-cri')?.status, 'warning')
  t.true(running.ready)
  t.is(running.code, 0)

  await node.stopDaemon()
  t.is((await check(t, node)).of('snapshotter')?.status, 'missing')
  appendFileSync(node.path('usr/local/etc/caisson/shim.conf'), '# mine\n')
  t.regex((await check(t, node)).of('installation')?.found ?? '', /shim\.conf/)
})

async function check(t: ExecutionContext, node: TestNode): Promise<Checked> {
  const { code, stdout, stderr } = await node.caisson('check', '--json')
  t.is(stderr, '')
  const { ready, findings } = JSON.parse(stdout) as { ready: boolean; findings: readonly Finding[] }
  return { code, ready, of: (wanted) => findings.find((finding) => finding.code === wanted) }
}
