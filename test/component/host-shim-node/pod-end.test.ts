/** Ends of pods that cannot be removed at once; no VM is booted. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { daemon } from './fixtures/shim.ts'

const OFTEN_MS = 50

test('a pod that cannot be removed keeps no daemon from its node, and is removed as soon as it can be', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'ce-'))
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  const records = join(root, 'n/records')
  mkdirSync(records, { recursive: true })
  // Neither the relay nor the machine is there any more, and what lies at the socket's place is not what the pod made.
  const socket = join(root, 'in-the-way')
  mkdirSync(socket)
  const { pid } = spawnSync('true')
  writeFileSync(
    join(records, 'stuck.json'),
    JSON.stringify({
      version: 1,
      sandboxId: 'stuck',
      namespace: 'k8s.io',
      bundle: join(root, 'bundle'),
      socket,
      containerd: { grpc: join(root, 'c.sock'), ttrpc: join(root, 'c.sock.ttrpc') },
      relay: { pid, startTicks: 1 },
      tasks: {},
      events: [],
      answers: [],
      begun: [],
    }),
  )
  const lines: string[] = []
  await using _node = await daemon(root, OFTEN_MS, { log: (line) => lines.push(line) })
  t.regex(lines[0] ?? '', /^pod stuck: .*in-the-way/)
  const failures = lines.length
  while (lines.length < failures + 4) await new Promise((resolve) => setTimeout(resolve, 10))
  rmdirSync(socket)
  while (readdirSync(records).length > 0) await new Promise((resolve) => setTimeout(resolve, 10))
  const told = lines.slice(failures)
  t.true(
    told.length >= 4 && told.every((line) => /^pod stuck: (?:.*in-the-way|containerd has forgotten it)/.test(line)),
  )
})
