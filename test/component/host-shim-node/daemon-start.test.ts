/** A daemon that cannot start, as the one after it finds the node; no VM is booted. */
import { mkdirSync, mkdtempSync, rmdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { findProcesses, isSameProcess } from '#host-shim/pod/process-identity'
import { callShim, daemon } from './fixtures/shim.ts'

const NEVER_MS = 2 ** 30

test('a daemon that could not start keeps none from starting after it', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'cd-'))
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  const beside = () => Promise.reject(new Error('nothing beside'))
  await t.throwsAsync(daemon(root, NEVER_MS, { beside }), { message: 'nothing beside' })
  const socket = join(root, 'n/node.sock')
  mkdirSync(socket)
  await t.throwsAsync(daemon(root, NEVER_MS), { code: 'ERR_FS_EISDIR' })
  rmdirSync(socket)
  await using node = await daemon(root, NEVER_MS)
  t.truthy(node)
  await t.throwsAsync(daemon(root, NEVER_MS), { code: 'ERR_NODE_RUNNING' })
})

test('a pod whose record cannot be written is refused, and can begin when there is room', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'cd-'))
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  await using _node = await daemon(root, NEVER_MS)
  const records = join(root, 'n/records')
  rmSync(records, { recursive: true })
  const id = `unwritten-${process.pid}`
  const refused = await callShim(root, id, 'start')
  t.not(refused.code, 0)
  t.regex(refused.stderr, /ERR_NODE_STATE/)
  mkdirSync(records)
  t.is((await callShim(root, id, 'start')).code, 0)
  const [relay] = await findProcesses(root, (words) => words.includes(id))
  t.truthy(relay)
  t.is((await callShim(root, id, 'delete')).code, 0)
  while (relay !== undefined && (await isSameProcess(relay))) await new Promise((resolve) => setTimeout(resolve, 20))
})
