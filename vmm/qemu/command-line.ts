/**
 * A VM plan as QEMU's arguments. Nothing is left to QEMU's defaults or the user's configuration, so that the same plan
 * gives the same machine, and with it the same measurements, everywhere.
 */
import { UsageError } from '#protocol/errors'
import type { DiskPlan, VmPlan } from '../types.ts'

/** sun_path holds 108 bytes with the terminating zero. */
const MAX_SOCKET_PATH_BYTES = 107

/** QEMU's user-mode network as the guest must configure it; the host's loopback answers at the gateway. */
export const USER_NETWORK = {
  mac: '52:54:00:ca:15:01',
  addresses: ['10.0.2.15/24'],
  gateways: ['10.0.2.2'],
  nameservers: ['10.0.2.3'],
  mtu: 1500,
} as const

/**
 * VIRTIO_F_ACCESS_PLATFORM on every device: the guest's drivers hand over addresses through its DMA layer instead of raw
 * physical ones. In a TEE that is what keeps private memory from devices; elsewhere it changes nothing, and the same
 * machine runs everywhere. Only devices without the legacy interface can offer it. For vhost-user-vsock QEMU keeps the
 * bit to itself (no IOMMU, so addresses are the guest's), and the backend never sees it.
 */
const VIRTIO = 'disable-legacy=on,iommu_platform=on'

export interface ControlSockets {
  readonly qmp: string
  readonly console: string
  /** QEMU listens here for whoever takes the VM over when the process that started it is gone. */
  readonly later: string
}

/** On the first two we listen and QEMU connects, so that no byte is lost and nothing has to be polled for. */
export function controlSockets(runDir: string): ControlSockets {
  return { qmp: `${runDir}/qmp.sock`, console: `${runDir}/console.sock`, later: `${runDir}/later.sock` }
}

/** @throws UsageError ERR_VM_PLAN naming what cannot be built */
export function qemuCommandLine(plan: VmPlan, program = 'qemu-system-x86_64'): readonly string[] {
  checkPlan(plan)
  const sockets = controlSockets(plan.runDir)
  return [
    program,
    ['-name', `guest=caisson-${plan.id}`],
    ['-nodefaults', '-no-user-config', '-no-reboot', '-S'],
    ['-display', 'none'],
    // QEMU starts with these rights and can never get them back: no exec, no set-uid, no change of its own limits.
    ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ['-machine', 'q35,memory-backend=memory,usb=off,vmport=off,dump-guest-core=off'],
    ['-accel', plan.accelerator === 'kvm' ? 'kvm' : 'tcg,thread=multi'],
    // OVMF's first volume is measured with what it learned of the machine written into it: the width of physical
    // addresses, the number of CPUs, and with S3 the top of memory. So these are the same under KVM and TCG, or off.
    ['-cpu', 'max,host-phys-bits=off,phys-bits=40'],
    ['-smp', String(plan.vcpus)],
    ['-global', 'ICH9-LPC.disable_s3=1', '-global', 'ICH9-LPC.disable_s4=1'],
    ['-m', `${plan.memoryMib}M`],
    // share=on: with a private mapping the vsock backend would see only zeros, without any error.
    ['-object', `memory-backend-memfd,id=memory,size=${plan.memoryMib}M,share=on`],
    ['-chardev', socketChardev('qmp', sockets.qmp)],
    ['-mon', 'chardev=qmp,mode=control'],
    ['-chardev', `${socketChardev('later', sockets.later)},server=on,wait=off`],
    ['-mon', 'chardev=later,mode=control'],
    ['-chardev', socketChardev('console', sockets.console)],
    ['-device', 'isa-serial,chardev=console'],
    bootArguments(plan),
    plan.disks.map(diskArguments),
    vsockArguments(plan),
    networkArguments(plan),
    tpmArguments(plan),
  ].flat(3)
}

function bootArguments(plan: VmPlan): string[] {
  const kernel = ['-kernel', plan.kernel, '-append', plan.commandLine]
  // -bios and not pflash: no variable store, so no state of an earlier boot in what is measured.
  return plan.firmware === undefined ? kernel : ['-bios', plan.firmware, ...kernel]
}

function diskArguments(disk: DiskPlan, index: number): string[] {
  const node = {
    driver: 'raw',
    'node-name': disk.serial,
    'read-only': disk.readOnly,
    discard: disk.readOnly ? 'ignore' : 'unmap',
    // The scratch disk dies with the VM: its flushes need not reach the platter.
    cache: { direct: false, 'no-flush': !disk.readOnly && disk.device !== true },
    file: {
      driver: disk.device === true ? 'host_device' : 'file',
      filename: disk.path,
      'read-only': disk.readOnly,
      locking: 'off',
    },
  }
  // A fixed slot: /dev/vda is the first disk whatever else the machine has.
  const slot = `0x${(index + 4).toString(16)}`
  return [
    '-blockdev',
    JSON.stringify(node),
    '-device',
    `virtio-blk-pci,drive=${disk.serial},serial=${disk.serial},addr=${slot},${VIRTIO}`,
  ]
}

function vsockArguments(plan: VmPlan): string[] {
  if (plan.vsockSocket === undefined) return []
  return [
    '-chardev',
    socketChardev('vsock', plan.vsockSocket),
    '-device',
    `vhost-user-vsock-pci,chardev=vsock,addr=0x10,${VIRTIO}`,
  ]
}

function networkArguments(plan: VmPlan): string[] {
  const { network } = plan
  if (network === 'none') return []
  const mac = network === 'user' ? USER_NETWORK.mac : network.mac
  return [
    '-netdev',
    network === 'user'
      ? 'user,id=net,ipv6=off'
      : `tap,id=net,ifname=${escapeOption(network.tap)},script=no,downscript=no`,
    '-device',
    // romfile=: an option ROM would be measured into PCR 2 and differ between versions of QEMU.
    `virtio-net-pci,netdev=net,mac=${mac},romfile=,addr=0x11,${VIRTIO}`,
  ]
}

/**
 * tpm-crb and not tpm-tis: both work and boot equally fast, but CRB exists for TPM 2.0 alone and hands a command over as
 * one buffer, where TIS feeds it through a register with localities and burst counts.
 */
function tpmArguments(plan: VmPlan): string[] {
  if (plan.tpmSocket === undefined) return []
  return [
    '-chardev',
    socketChardev('tpm', plan.tpmSocket),
    '-tpmdev',
    'emulator,id=tpm,chardev=tpm',
    '-device',
    'tpm-crb,tpmdev=tpm',
  ]
}

function socketChardev(id: string, path: string): string {
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
    throw new UsageError('ERR_SOCKET_PATH', `the socket path ${path} is longer than ${MAX_SOCKET_PATH_BYTES} bytes`, {
      hint: 'Choose a shorter state directory, such as /run/caisson',
    })
  }
  return `socket,id=${id},path=${escapeOption(path)}`
}

/** QEMU splits option strings at commas; two stand for one. */
function escapeOption(value: string): string {
  return value.replaceAll(',', ',,')
}

function checkPlan(plan: VmPlan): void {
  const problems: string[] = []
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(plan.id)) problems.push(`id ${JSON.stringify(plan.id)} is not a name`)
  if (!Number.isInteger(plan.vcpus) || plan.vcpus < 1 || plan.vcpus > 256) problems.push(`${plan.vcpus} vCPUs`)
  if (!Number.isInteger(plan.memoryMib) || plan.memoryMib < 64) problems.push(`${plan.memoryMib} MiB of memory`)
  if (typeof plan.network === 'object') {
    const { tap, mac } = plan.network
    if (!/^[A-Za-z0-9._-]{1,15}$/.test(tap)) problems.push(`tap device ${JSON.stringify(tap)}`)
    if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac)) problems.push(`MAC ${JSON.stringify(mac)}`)
  }
  if (plan.disks.length > 8) problems.push(`${plan.disks.length} disks, at most 8`)
  if ((plan.platform === 'tpm') !== (plan.tpmSocket !== undefined)) problems.push('a TPM socket goes with platform tpm')
  if ((plan.platform === 'tpm') !== (plan.firmware !== undefined)) problems.push('firmware goes with platform tpm')
  if (problems.length === 0) return
  throw new UsageError('ERR_VM_PLAN', `this VM cannot be built: ${problems.join('; ')}`)
}
