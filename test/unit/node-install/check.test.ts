import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import test from 'ava'
import fc from 'fast-check'
import { judgeCri } from '#host-shim/install/check/containerd'
import { parseCriStatus } from '#host-shim/install/check/cri-status'
import { judgeCpu, judgeKernel, judgeQemu, judgeTee } from '#host-shim/install/check/machine'
import { nodeLayout } from '#host-shim/install/node-layout'
import { CaissonError } from '#protocol/errors'
import { refusesOrKeeps } from '../parser-property.ts'

test('a machine without virtualisation can be a node unless KVM is demanded', (t) => {
  const probe = { usable: false, reason: 'there is no /dev/kvm' }
  t.is(judgeCpu(probe, 'auto').status, 'warning')
  t.like(judgeCpu(probe, 'kvm'), { status: 'missing', found: 'there is no /dev/kvm' })
  t.is(judgeCpu({ usable: true, reason: 'the CPU offers VMX and a tiny guest ran' }, 'kvm').status, 'ok')
})

test('SEV-SNP counts only when the security processor came up, TDX when KVM has it on', (t) => {
  t.like(judgeTee({ sevSnp: 'Y', sevDevice: true, tdx: undefined }), { status: 'ok', found: 'SEV-SNP' })
  t.like(judgeTee({ sevSnp: 'Y', sevDevice: false, tdx: undefined }), { status: 'warning' })
  t.like(judgeTee({ sevSnp: undefined, sevDevice: false, tdx: 'Y' }), { status: 'ok', found: 'TDX' })
  for (const tdx of ['N', undefined]) {
    const { status, remedy } = judgeTee({ sevSnp: 'N', sevDevice: true, tdx })
    t.is(status, 'warning')
    t.truthy(remedy)
  }
})

test('kernel and QEMU are compared by their numbers, whatever follows them', (t) => {
  t.is(judgeKernel('6.1.0-28-amd64').status, 'ok')
  t.is(judgeKernel('5.9.16').status, 'ok')
  t.is(judgeKernel('5.4.0-150-generic').status, 'missing')
  t.is(judgeQemu('QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg)').status, 'ok')
  t.is(judgeQemu('QEMU emulator version 10.0.2').status, 'ok')
  t.is(judgeQemu('QEMU emulator version 6.2.0').status, 'missing')
  t.is(judgeQemu(undefined).status, 'missing')
})

test('a containerd that was not restarted after the installation is told from one that was', (t) => {
  const layout = nodeLayout()
  const ready = { conditions: { RuntimeReady: true, NetworkReady: true }, runtimes: ['runc', 'caisson'] }
  t.is(judgeCri(ready, layout).status, 'ok')
  t.like(judgeCri({ ...ready, runtimes: ['runc'] }, layout), { status: 'missing', found: 'runtimes runc' })
  t.is(judgeCri({ ...ready, conditions: { RuntimeReady: true } }, layout).status, 'warning')
  t.is(judgeCri({ ...ready, conditions: {} }, layout).status, 'missing')
  t.is(judgeCri('connection refused', layout).status, 'missing')
})

test('CRI’s status is read from its message, or refused', (t) => {
  const good = statusMessage(
    { RuntimeReady: true, NetworkReady: false },
    '{"containerd":{"runtimes":{"runc":{},"caisson":{}}}}',
  )
  t.deepEqual(parseCriStatus(good), {
    conditions: { RuntimeReady: true, NetworkReady: false },
    runtimes: ['runc', 'caisson'],
  })
  t.deepEqual(parseCriStatus(new Uint8Array()), { conditions: {}, runtimes: [] })
  for (let length = 1; length < good.byteLength; length++) {
    try {
      parseCriStatus(good.subarray(0, length))
    } catch (error) {
      t.is((error as CaissonError).code, 'ERR_CRI_STATUS')
    }
  }
  const damagedBytes = fc
    .tuple(fc.nat(good.byteLength), fc.nat(4), fc.uint8Array({ maxLength: 6 }))
    .map(([at, length, piece]) => Buffer.concat([good.subarray(0, at), piece, good.subarray(at + length)]))
  refusesOrKeeps(
    t,
    fc.oneof(damagedBytes, fc.uint8Array({ maxLength: 64 })),
    parseCriStatus,
    ({ runtimes, conditions }) =>
      runtimes.every((name) => typeof name === 'string') &&
      Object.values(conditions).every((value) => typeof value === 'boolean'),
  )
  t.throws(() => parseCriStatus(statusMessage({}, '{')), { instanceOf: CaissonError })
})

function statusMessage(conditions: Readonly<Record<string, boolean>>, config: string): Uint8Array {
  const status = new BinaryWriter()
  for (const [type, holds] of Object.entries(conditions)) {
    status.tag(1, WireType.LengthDelimited).fork()
    status.tag(1, WireType.LengthDelimited).string(type).tag(2, WireType.Varint).bool(holds).join()
  }
  const entry = new BinaryWriter()
    .tag(1, WireType.LengthDelimited)
    .string('config')
    .tag(2, WireType.LengthDelimited)
    .string(config)
  return new BinaryWriter()
    .tag(1, WireType.LengthDelimited)
    .bytes(status.finish())
    .tag(2, WireType.LengthDelimited)
    .bytes(entry.finish())
    .finish()
}
