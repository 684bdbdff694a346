/** Pods whose containerd is gone, as their daemons and relays live through it; no VM is booted. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { findProcesses, isSameProcess } from '#host-shim/pod/process-identity'
import { callShim, daemon } from './fixtures/shim.ts'

const OFTEN_MS = 200
const NEVER_MS = 2 ** 30
test.serial('a pod that containerd began and forgot is removed, also by a daemon that came later', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'ca-'))
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  const first = await daemon(root, NEVER_MS)
  t.is((await callShim(root, `forgotten-${process.pid}`, 'start')).code, 0)
  const [relay] = await findProcesses(root, (words) => words.includes(`forgotten-${process.pid}`))
  t.truthy(relay)
  const path = join(root, 'n/records', `forgotten-${process.pid}.json`)
  while (!readFileSync(path, 'utf8').includes(`"pid":${relay?.pid}`))
    await new Promise((resolve) => setTimeout(resolve, 20))
  await first[Symbol.asyncDispose]()
  // The relay waits for the next daemon.
  t.true(relay !== undefined && (await isSameProcess(relay)))
  await using _second = await daemon(root, OFTEN_MS)
  while (relay !== undefined && (await isSameProcess(relay))) await new Promise((resolve) => setTimeout(resolve, 20))
  t.deepEqual(readdirSync(join(root, 'n/records')), [])
  t.deepEqual(existsSync(join(root, 's')) ? readdirSync(join(root, 's')) : [], [])
})
