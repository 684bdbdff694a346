import test from 'ava'
import { parseKvmFindings, parsePodEvent } from '#native/host/index'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

test('findings about KVM are complete, or refused', (t) => {
  const good = { cpu: 'vmx', device: 'open', guest: 'ran', errno: 0, step: 'halt of the guest' }
  refusesOrKeeps(
    t,
    damaged(JSON.stringify(good)),
    parseKvmFindings,
    ({ cpu, errno }) => ['vmx', 'svm', 'none'].includes(cpu) && typeof errno === 'number',
  )
})

for (const good of [
  { event: 'listening', vsock: '/run/vsock.sock' },
  { event: 'vm-started', pid: 7 },
  { event: 'guest-connected', resumed: false },
  { event: 'protocol-error', part: 'ring', reason: 'chain loops' },
  { event: 'vm-exit', code: 0 },
]) {
  test(`a line like ${good.event} is an event with its members, or refused`, (t) => {
    t.deepEqual(parsePodEvent(JSON.stringify(good)), good as ReturnType<typeof parsePodEvent>)
    refusesOrKeeps(t, damaged(JSON.stringify(good)), parsePodEvent, (value) =>
      Object.values(value).every((member) => member !== undefined && member !== null),
    )
  })
}
