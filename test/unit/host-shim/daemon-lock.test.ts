import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { DaemonLock } from '#host-shim/node/daemon-lock'

const MODULE = new URL('../../../host-shim/node/daemon-lock.ts', import.meta.url).href
const HOLDER = `
const { DaemonLock } = await import(${JSON.stringify(MODULE)})
const lock = DaemonLock.take(process.argv[1])
process.stdout.write(lock === undefined ? 'refused' : 'taken')
setInterval(() => lock, 1000)
`

test('of two daemons that start at once one goes on, and a killed one keeps nobody out', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-lock-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'node.lock')
  const holder = spawn(process.execPath, ['--input-type=module', '-e', HOLDER, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => holder.kill('SIGKILL'))
  t.is(String((await once(holder.stdout, 'data'))[0]), 'taken')
  t.is(DaemonLock.take(path), undefined)
  holder.kill('SIGKILL')
  await once(holder, 'exit')
  const lock = DaemonLock.take(path)
  t.truthy(lock)
  t.is(DaemonLock.take(path), undefined)
  lock?.[Symbol.dispose]()
  t.truthy(DaemonLock.take(path))
})
