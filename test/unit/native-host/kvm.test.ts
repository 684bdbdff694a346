import test from 'ava'
import { judgeKvm, type KvmFindings, parseKvmFindings } from '#native/host/index'

const good: KvmFindings = { cpu: 'vmx', device: 'open', guest: 'ran', errno: 0, step: 'halt of the guest' }

test('KVM is usable when the CPU offers virtualisation and a guest ran', (t) => {
  t.deepEqual(judgeKvm(good), { usable: true, reason: 'the CPU offers VMX and a tiny guest ran' })
  t.true(judgeKvm({ ...good, cpu: 'svm' }).usable)
})

test('a guest that ran on a CPU without virtualisation does not make KVM usable', (t) => {
  const verdict = judgeKvm({ ...good, cpu: 'none' })
  t.false(verdict.usable)
  t.regex(verdict.reason, /neither VMX nor SVM/)
})

for (const [device, reason] of [
  ['absent', 'there is no /dev/kvm'],
  ['denied', '/dev/kvm may not be opened by this user (group kvm)'],
  ['failed', '/dev/kvm does not open: errno 5'],
] as const) {
  test(`a device that is ${device} makes KVM unusable, whatever the CPU offers`, (t) => {
    t.deepEqual(judgeKvm({ ...good, device, guest: 'not-tried', errno: 5 }), { usable: false, reason })
  })
}

test('a guest that fails names the step', (t) => {
  const verdict = judgeKvm({ ...good, guest: 'failed', errno: 16, step: 'KVM_CREATE_VM' })
  t.deepEqual(verdict, { usable: false, reason: '/dev/kvm opens, but a tiny guest fails at KVM_CREATE_VM: errno 16' })
})

test('findings are read strictly', (t) => {
  t.deepEqual(parseKvmFindings(`${JSON.stringify(good)}\n`), good)
  for (const text of [
    '',
    'null',
    '{}',
    '[]',
    JSON.stringify({ ...good, cpu: 'arm' }),
    JSON.stringify({ ...good, step: 1 }),
  ]) {
    t.throws(() => parseKvmFindings(text), { code: 'ERR_KVM_PROBE' }, text)
  }
})
