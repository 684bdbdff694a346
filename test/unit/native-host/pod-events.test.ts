import test from 'ava'
import { parsePodEvent } from '#native/host/index'

test('each event of caisson-pod is read with its fields', (t) => {
  const events = [
    { event: 'listening', vsock: '/run/x/vsock.sock' },
    { event: 'vm-started', pid: 17 },
    { event: 'guest-connected', resumed: false },
    { event: 'guest-reset' },
    { event: 'protocol-error', part: 'ring', reason: 'chain loops' },
    { event: 'vm-exit', code: 0 },
    { event: 'vm-exit', signal: 9 },
  ]
  for (const event of events) t.deepEqual(parsePodEvent(JSON.stringify(event)), event)
})

test('a line that is no event, or lacks a field, is refused', (t) => {
  const lines = [
    '',
    'null',
    '[]',
    '7',
    '{',
    '{"event":"other"}',
    '{"event":"listening"}',
    '{"event":"vm-started","pid":"17"}',
    '{"event":"guest-connected"}',
    '{"event":"protocol-error","part":"other","reason":"x"}',
    '{"event":"vm-exit"}',
  ]
  for (const line of lines) t.throws(() => parsePodEvent(line), { code: 'ERR_POD_EVENT' }, line)
})
