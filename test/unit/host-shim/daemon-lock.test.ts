import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import test, { type ExecutionContext } from 'ava'
import { DaemonLock } from '#host-shim/node/daemon-lock'

type Holder = ChildProcessByStdio<null, Readable, null>

const MODULE = new URL('../../../host-shim/node/daemon-lock.ts', import.meta.url).href
const HOLDER = `
const { DaemonLock } = await import(${JSON.stringify(MODULE)})
const lock = DaemonLock.take(process.argv[1])
process.stdout.write(lock === undefined ? 'refused' : 'taken')
setInterval(() => lock, 1000)
`

test('whoever is refused in the process that has the lock does not open it to others', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-lock-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'node.lock')
  const lock = DaemonLock.take(path)
  t.is(statSync(path).mode & 0o777, 0o600)
  t.is(DaemonLock.take(path), undefined)
  t.is(await taken(t, path), 'refused')
  lock?.[Symbol.dispose]()
  t.is(await taken(t, path), 'taken')
})

test('of two daemons that start at once one goes on, and a killed one keeps nobody out', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-lock-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'node.lock')
  const holder = hold(t, path)
  t.is(await said(holder), 'taken')
  t.is(DaemonLock.take(path), undefined)
  holder.kill('SIGKILL')
  await once(holder, 'exit')
  const lock = DaemonLock.take(path)
  t.truthy(lock)
  t.is(DaemonLock.take(path), undefined)
  lock?.[Symbol.dispose]()
  t.truthy(DaemonLock.take(path))
})

/** Another process that tries to take the lock, and keeps it until it is killed. */
function hold(t: ExecutionContext, path: string): Holder {
  const holder = spawn(process.execPath, ['--input-type=module', '-e', HOLDER, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => holder.kill('SIGKILL'))
  return holder
}

async function said(holder: Holder): Promise<string> {
  return String((await once(holder.stdout, 'data'))[0])
}

async function taken(t: ExecutionContext, path: string): Promise<string> {
  return said(hold(t, path))
}
