import test from 'ava'
import { parsePodRecord } from '#host-shim/pod/state-dir'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

test('a record names a process that may be ended, or is refused', (t) => {
  const good = {
    version: 1,
    id: 'web',
    platform: 'none',
    createdAtMs: 1,
    bootId: 'b',
    owner: { pid: 77, startTicks: 5 },
    labels: { image: 'nginx' },
  }
  t.like(parsePodRecord(JSON.stringify(good)), { id: 'web' })
  refusesOrKeeps(
    t,
    damaged(JSON.stringify(good)),
    parsePodRecord,
    // Never PID 1, never a process group.
    ({ owner, labels }) => owner.pid > 1 && Object.values(labels).every((label) => typeof label === 'string'),
  )
})
