import test from 'ava'
import { qemuCommandLine } from '#vmm/qemu/command-line'
import type { VmPlan } from '#vmm/types'

const plan: VmPlan = {
  id: 'a1',
  platform: 'none',
  accelerator: 'tcg',
  kernel: '/g/bzImage',
  commandLine: 'root=/dev/dm-0 quiet',
  disks: [
    { serial: 'root', path: '/g/root.img', readOnly: true },
    { serial: 'scratch', path: '/s/scratch.img', readOnly: false },
  ],
  vcpus: 2,
  memoryMib: 512,
  network: 'user',
  vsockSocket: '/s/vhost.sock',
  runDir: '/s',
}
const tpmPlan: VmPlan = { ...plan, platform: 'tpm', firmware: '/f/OVMF.fd', tpmSocket: '/s/tpm.sock' }

/** Values of an option, in order. */
function values(argv: readonly string[], option: string): readonly string[] {
  return argv.flatMap((word, index) => (word === option ? [argv[index + 1] ?? ''] : []))
}

test('the VM has no default device, no user configuration, no reboot and a sandbox that denies exec', (t) => {
  const argv = qemuCommandLine(plan)
  for (const option of ['-nodefaults', '-no-user-config', '-no-reboot']) t.true(argv.includes(option))
  t.deepEqual(values(argv, '-sandbox'), ['on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'])
  t.deepEqual(values(argv, '-display'), ['none'])
})

test('guest memory is shared, of the size that -m says, and used by the machine', (t) => {
  const argv = qemuCommandLine(plan)
  t.deepEqual(values(argv, '-m'), ['512M'])
  t.deepEqual(values(argv, '-object'), ['memory-backend-memfd,id=memory,size=512M,share=on'])
  t.regex(values(argv, '-machine')[0] ?? '', /^q35,memory-backend=memory,/)
})

test('the kernel gets the command line byte for byte', (t) => {
  const commandLine = 'dm-mod.create="root,,,ro,0 8 verity 1 /dev/vda" console=ttyS0'
  t.deepEqual(values(qemuCommandLine({ ...plan, commandLine }), '-append'), [commandLine])
})

test('disks come in the order of the plan, in fixed slots, found by their serial numbers', (t) => {
  const argv = qemuCommandLine(plan)
  const devices = values(argv, '-device').filter((device) => device.startsWith('virtio-blk'))
  t.deepEqual(devices, [
    'virtio-blk-pci,drive=root,serial=root,addr=0x4,disable-legacy=on,iommu_platform=on',
    'virtio-blk-pci,drive=scratch,serial=scratch,addr=0x5,disable-legacy=on,iommu_platform=on',
  ])
  const [root, scratch] = values(argv, '-blockdev').map((text) => JSON.parse(text))
  t.like(root, { driver: 'raw', 'read-only': true, file: { filename: '/g/root.img', 'read-only': true } })
  t.like(scratch, { 'read-only': false, discard: 'unmap', file: { filename: '/s/scratch.img' } })
})

test('a block device of the host is opened as one, and what the guest flushes reaches it', (t) => {
  const disk = { serial: 'block-0', path: '/dev/sdb', readOnly: false, device: true } as const
  const [, scratch, block] = values(qemuCommandLine({ ...plan, disks: [...plan.disks, disk] }), '-blockdev').map(
    (text) => {
      return JSON.parse(text)
    },
  )
  t.like(block, {
    'node-name': 'block-0',
    cache: { 'no-flush': false },
    file: { driver: 'host_device', filename: '/dev/sdb' },
  })
  t.like(scratch, { cache: { 'no-flush': true }, file: { driver: 'file' } })
})

test('a path with a comma stays one value', (t) => {
  const argv = qemuCommandLine({ ...plan, vsockSocket: '/s,id=x/vhost.sock' })
  t.true(values(argv, '-chardev').includes('socket,id=vsock,path=/s,,id=x/vhost.sock'))
})

test('no network device carries an option ROM, since the firmware would measure it', (t) => {
  const device = values(qemuCommandLine(plan), '-device').find((text) => text.startsWith('virtio-net'))
  t.regex(device ?? '', /,romfile=,/)
  t.false(qemuCommandLine({ ...plan, network: 'none' }).includes('-netdev'))
})

test('platform tpm has firmware without a variable store and a TPM; platform none has neither', (t) => {
  const argv = qemuCommandLine(tpmPlan)
  t.deepEqual(values(argv, '-bios'), ['/f/OVMF.fd'])
  t.deepEqual(values(argv, '-tpmdev'), ['emulator,id=tpm,chardev=tpm'])
  t.true(values(argv, '-device').includes('tpm-crb,tpmdev=tpm'))
  t.false(qemuCommandLine(plan).includes('-bios'))
  t.false(qemuCommandLine(plan).includes('-tpmdev'))
})

test('what the firmware measures of the machine is fixed: S3 off, address width, plain CPU count', (t) => {
  const argv = qemuCommandLine(tpmPlan)
  t.deepEqual(values(argv, '-global'), ['ICH9-LPC.disable_s3=1', 'ICH9-LPC.disable_s4=1'])
  t.deepEqual(values(argv, '-cpu'), ['max,host-phys-bits=off,phys-bits=40'])
  t.deepEqual(values(argv, '-smp'), ['2'])
})

test('the accelerator is the one of the plan, alone', (t) => {
  t.deepEqual(values(qemuCommandLine(plan), '-accel'), ['tcg,thread=multi'])
  t.deepEqual(values(qemuCommandLine({ ...plan, accelerator: 'kvm' }), '-accel'), ['kvm'])
})

test('nothing of the environment reaches the arguments: equal plans give equal command lines', (t) => {
  t.deepEqual(qemuCommandLine(tpmPlan), qemuCommandLine({ ...tpmPlan }))
})

const broken: readonly [string, Partial<VmPlan>, string][] = [
  ['an id that is no name', { id: 'a,b' }, 'ERR_VM_PLAN'],
  ['no CPU', { vcpus: 0 }, 'ERR_VM_PLAN'],
  ['half a MiB', { memoryMib: 100.5 }, 'ERR_VM_PLAN'],
  ['a TPM socket on platform none', { tpmSocket: '/s/tpm.sock' }, 'ERR_VM_PLAN'],
  ['firmware on platform none', { firmware: '/f/OVMF.fd' }, 'ERR_VM_PLAN'],
  ['a socket path above 107 bytes', { vsockSocket: `/${'x'.repeat(107)}` }, 'ERR_SOCKET_PATH'],
]
for (const [what, change, code] of broken) {
  test(`${what} is refused`, (t) => {
    t.throws(() => qemuCommandLine({ ...plan, ...change }), { code })
  })
}
