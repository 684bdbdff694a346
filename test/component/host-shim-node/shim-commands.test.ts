/** The shim's own commands, as containerd calls them. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fromBinary } from '@bufbuild/protobuf'
import test from 'ava'
import { DeleteResponseSchema } from '#host-shim/containerd/gen/task_pb'
import { callShim, daemon } from './fixtures/shim.ts'

const NEVER_MS = 2 ** 30

test('start says the address of its pod and nothing else, delete how the pod ended, and both are silent beside', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'cs-'))
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  await using _node = await daemon(root, NEVER_MS)
  const id = `silent-${process.pid}`
  const started = await callShim(root, id, 'start')
  t.is(started.code, 0)
  t.regex(started.stdout.toString(), /^unix:\/\/[^\s]+$/)
  t.is(started.stderr, '')
  const deleted = await callShim(root, id, 'delete')
  t.is(deleted.code, 0)
  t.is(fromBinary(DeleteResponseSchema, deleted.stdout).exitStatus, 137)
  t.is(deleted.stderr, '')
  t.deepEqual(readdirSync(join(root, 'n/records')), [])
  // Again, for a pod that is gone: containerd asks whenever it is in doubt.
  const again = await callShim(root, id, 'delete')
  t.deepEqual([again.code, again.stderr], [0, ''])
})
