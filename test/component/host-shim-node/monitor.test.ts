/** What a node tells to whoever watches it, and that it takes nothing else from them; no VM is booted. */
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import test from 'ava'
import { askDaemon } from '#host-shim/node/ask-daemon'
import { monitorSocketIn } from '#host-shim/node/monitor-socket'
import { callShim, daemon } from './fixtures/shim.ts'

const NEVER_MS = 2 ** 30

test('the monitor’s socket tells of a node, and takes no request that begins or ends a pod', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'cm-'))
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  await using _node = await daemon(root, NEVER_MS)
  const socket = monitorSocketIn(join(root, 'n'))
  t.is(statSync(socket).mode & 0o777, 0o600)
  const id = `watched-${process.pid}`
  t.is((await callShim(root, id, 'start')).code, 0)

  t.like(JSON.parse(await askDaemon(socket, 'report')), [{ id, stage: 'booting' }])
  t.regex(await askDaemon(socket, 'metrics'), /^caisson_pod_relay_bytes[{]/m)

  const records = (): readonly string[] => readdirSync(join(root, 'n/records'))
  const before = records()
  const of = (name: string) => [
    `id ${name}`,
    'namespace k8s.io',
    `bundle ${join(root, 'bundles', id)}`,
    'address /c.sock',
  ]
  for (const verb of ['start', 'delete', 'pod', 'task', 'other']) {
    for (const name of [id, 'another']) {
      t.is(await said(socket, [verb, ...of(name), `pid ${process.pid}`]), '', verb)
      t.deepEqual(records(), before, verb)
    }
  }
  // The same words on the daemon's own socket are obeyed.
  t.regex(await said(join(root, 'n/node.sock'), ['delete', ...of(id)]), /^deleted /)
  t.deepEqual(records(), [])
})

async function said(path: string, lines: readonly string[]): Promise<string> {
  const socket = connect({ path, allowHalfOpen: true })
  socket.write(`${lines.join('\n')}\n\n`)
  return text(socket)
}
