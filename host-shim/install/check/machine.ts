/** Needs of a node that have nothing to do with containerd: what runs VMs, and what isolates and connects them. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readdir, readFile, statfs } from 'node:fs/promises'
import { release } from 'node:os'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { CAISSON_POD, type KvmProbe, probeKvm } from '#native/host/index'
import { errorText } from '#protocol/errors'
import type { AcceleratorChoice, Platform } from '#vmm/types'
import { DEFAULT_SCRATCH_MIB } from '../../pod/pod-plan.ts'
import { type Finding, lacking, ok } from './finding.ts'

export interface MachineNeeds {
  readonly platform: Platform
  readonly accelerator: AcceleratorChoice
  readonly firmware: string
  /** Records and machines of pods; scratch disks among them. */
  readonly stateRoot: string
  /** Snapshots of images that this machine fetches. */
  readonly snapshots: string
  /** Where guest images are, once they are built. */
  readonly guests: string
}

const TIMEOUT_MS = 20_000
const MIB = 1024 * 1024
/** statfs(2) */
const TMPFS_MAGIC = 0x01021994
/** A node with less runs full with its first images. */
const MIN_SNAPSHOTS_MIB = 1024
/** The shim's close_range(2). */
const MIN_KERNEL = [5, 9] as const
/** The oldest that VMs were tried with. */
const MIN_QEMU = [7, 2] as const

export async function checkMachine(needs: MachineNeeds): Promise<readonly Finding[]> {
  const { platform, accelerator, firmware } = needs
  const probe = probeKvm().catch((error: unknown): KvmProbe => ({ usable: false, reason: errorText(error) }))
  return [
    judgeCpu(await probe, accelerator),
    judgeTee(await teeFacts()),
    judgeKernel(release()),
    judgeQemu(await outputOf('qemu-system-x86_64', ['--version'])),
    await checkPodProcess(),
    await checkGuest(needs.guests),
    ...(platform === 'tpm' ? [checkFirmware(firmware), await checkSoftwareTpm()] : []),
    await checkNetwork(),
    await checkDisk(needs),
  ]
}

export function judgeCpu({ usable, reason }: KvmProbe, accelerator: AcceleratorChoice): Finding {
  const needed = 'a CPU with VMX or SVM, and a KVM that runs guests'
  if (usable) return ok('cpu-virtualisation', needed, reason)
  return lacking('cpu-virtualisation', accelerator === 'kvm' ? 'missing' : 'warning', {
    needed,
    found: `${reason}${accelerator === 'kvm' ? '' : '; pods are emulated, and slow'}`,
    remedy:
      'Enable virtualisation in the firmware, or nested virtualisation in the outer hypervisor; load kvm_intel or kvm_amd',
  })
}

export interface TeeFacts {
  /** Module parameter `sev_snp` of kvm_amd: "Y", "N", or undefined without the module. */
  readonly sevSnp: string | undefined
  readonly sevDevice: boolean
  /** Module parameter `tdx` of kvm_intel. */
  readonly tdx: string | undefined
}

async function teeFacts(): Promise<TeeFacts> {
  const parameter = (path: string): Promise<string | undefined> =>
    readFile(`/sys/module/${path}`, 'utf8').then(
      (text) => text.trim(),
      () => undefined,
    )
  return {
    sevSnp: await parameter('kvm_amd/parameters/sev_snp'),
    sevDevice: existsSync('/dev/sev'),
    tdx: await parameter('kvm_intel/parameters/tdx'),
  }
}

/** Linux: Documentation/virt/kvm/x86/amd-memory-encryption.rst and intel-tdx.rst. */
export function judgeTee({ sevSnp, sevDevice, tdx }: TeeFacts): Finding {
  const needed = 'SEV-SNP (kvm_amd sev_snp=Y and /dev/sev) or TDX (kvm_intel tdx=Y)'
  const isOn = (value: string | undefined): boolean => value === 'Y' || value === '1'
  if (isOn(sevSnp) && sevDevice) return ok('tee', needed, 'SEV-SNP')
  if (isOn(tdx)) return ok('tee', needed, 'TDX')
  const found = isOn(sevSnp)
    ? 'SEV-SNP in the kernel, but no /dev/sev: the security processor did not come up'
    : 'neither: pods are attested by a software TPM, and this machine can read their memory'
  const remedy =
    'Enable SEV-SNP or TDX in the firmware (BIOS), with a host kernel from 6.11 (SNP) or 6.16 (TDX) on; see dmesg | grep -iE "sev|tdx"'
  return lacking('tee', 'warning', { needed, found, remedy })
}

export function judgeKernel(text: string): Finding {
  const needed = `Linux ${MIN_KERNEL.join('.')} or later`
  if (isFrom(text, MIN_KERNEL)) return ok('kernel', needed, text)
  return lacking('kernel', 'missing', { needed, found: text, remedy: 'Install a newer kernel' })
}

/** @param output of `qemu-system-x86_64 --version`, or undefined */
export function judgeQemu(output: string | undefined): Finding {
  const needed = `qemu-system-x86_64 ${MIN_QEMU.join('.')} or later`
  const version = /version ([0-9]+\.[0-9]+[.0-9]*)/.exec(output ?? '')?.[1]
  if (version !== undefined && isFrom(version, MIN_QEMU)) return ok('qemu', needed, version)
  const found = version ?? 'no program that runs'
  return lacking('qemu', 'missing', { needed, found, remedy: 'Install it: apt-get install qemu-system-x86' })
}

/** vhost-user: the pod's own process is the vsock device, so no /dev/vhost-* of the kernel is needed. */
async function checkPodProcess(): Promise<Finding> {
  const needed = 'caisson-pod, which is the vsock device of a VM (vhost-user; no /dev/vhost-vsock)'
  const answer = await outputOf(CAISSON_POD, [])
  if (answer?.includes('caisson-pod') === true) return ok('pod-process', needed, CAISSON_POD)
  const found = existsSync(CAISSON_POD) ? `${CAISSON_POD} does not run` : `${CAISSON_POD} is not there`
  return lacking('pod-process', 'missing', { needed, found, remedy: 'Build it: node native/build.mjs' })
}

/** Without one the first pod waits for its making, longer than any kubelet does. */
async function checkGuest(folder: string): Promise<Finding> {
  const needed = 'a guest image, built before the first pod'
  const names = await readdir(folder).catch(() => [])
  const count = names.filter((name) => !name.startsWith('.')).length
  if (count > 0) return ok('guest-image', needed, `${count} in ${folder}`)
  const remedy = 'Build it: caisson guest build; or install from an image that holds it (deploy/image)'
  return lacking('guest-image', 'warning', { needed, found: `none in ${folder}`, remedy })
}

function checkFirmware(path: string): Finding {
  const needed = 'firmware that measures what it boots (OVMF)'
  if (existsSync(path)) return ok('firmware', needed, path)
  return lacking('firmware', 'missing', { needed, found: `no ${path}`, remedy: 'Install it: apt-get install ovmf' })
}

async function checkSoftwareTpm(): Promise<Finding> {
  const needed = 'swtpm and swtpm_setup, the TPM of pods on platform tpm'
  const programs = ['swtpm', 'swtpm_setup']
  const answers = await Promise.all(programs.map((program) => outputOf(program, ['--version'])))
  const absent = programs.filter((_, index) => answers[index] === undefined)
  if (absent.length === 0) return ok('software-tpm', needed, answers[0]?.split('\n')[0] ?? '')
  const remedy = 'Install them: apt-get install swtpm swtpm-tools'
  return lacking('software-tpm', 'missing', { needed, found: `no ${absent.join(', no ')}`, remedy })
}

/** Does in a namespace of its own, which ends with it, what every pod's network needs. */
async function checkNetwork(): Promise<Finding> {
  const needed = 'ip, tc and nsenter, tap devices, and redirection between them (sch_ingress, cls_u32, act_mirred)'
  const steps = [
    'nsenter --version',
    'ip tuntap add dev caisson0 mode tap vnet_hdr',
    'ip link set caisson0 up',
    'tc qdisc add dev caisson0 ingress',
    'tc filter add dev caisson0 parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev lo',
  ]
  const script = steps.map((step) => `${step} >/dev/null || { echo '${step}'; exit 1; }`).join('\n')
  const failed = await new Promise<string | undefined>((resolve) => {
    execFile('unshare', ['--net', '--', 'sh', '-c', script], { timeout: TIMEOUT_MS }, (error, stdout, stderr) =>
      resolve(error === null ? undefined : `${stdout.trim()} failed: ${stderr.trim() || errorText(error)}`),
    )
  })
  if (failed === undefined) return ok('network-tools', needed, 'a tap was made and its packets redirected')
  const remedy = 'Run as root; apt-get install iproute2 util-linux; modprobe -a tun sch_ingress cls_u32 act_mirred'
  return lacking('network-tools', 'missing', { needed, found: failed, remedy })
}

async function checkDisk({ stateRoot, snapshots }: MachineNeeds): Promise<Finding> {
  const needed = `${MIN_SNAPSHOTS_MIB} MiB for images, and ${DEFAULT_SCRATCH_MIB} MiB per pod for its scratch disk`
  const scratch = await freeSpace(stateRoot)
  const images = await freeSpace(snapshots)
  const found = `${images.mib} MiB at ${images.path}, ${scratch.mib} MiB at ${scratch.path}`
  if (images.mib < MIN_SNAPSHOTS_MIB || scratch.mib < DEFAULT_SCRATCH_MIB) {
    return lacking('disk-space', 'warning', { needed, found, remedy: 'Free some space, or use a larger disk' })
  }
  if (!scratch.inMemory) return ok('disk-space', needed, found)
  return lacking('disk-space', 'warning', {
    needed,
    found: `${found}; the latter is memory, which the pods’ scratch disks fill`,
    remedy: 'Mount a disk there, for instance /run/caisson/pods, or count scratch disks as memory',
  })
}

/** Of the file system that holds `path`, or will. */
async function freeSpace(
  path: string,
): Promise<{ readonly path: string; readonly mib: number; readonly inMemory: boolean }> {
  let there = path
  while (!existsSync(there)) there = dirname(there)
  const { bavail, bsize, type } = await statfs(there)
  return { path: there, mib: Math.floor((bavail * bsize) / MIB), inMemory: type === TMPFS_MAGIC }
}

/** Undefined when it cannot be run. Programs that explain themselves with a failure count as run. */
function outputOf(program: string, words: readonly string[]): Promise<string | undefined> {
  return promisify(execFile)(program, [...words], { timeout: TIMEOUT_MS }).then(
    ({ stdout, stderr }) => stdout + stderr,
    (error: { code?: unknown; stdout?: string; stderr?: string }) =>
      typeof error.code === 'number' ? `${error.stdout ?? ''}${error.stderr ?? ''}` : undefined,
  )
}

function isFrom(version: string, [major, minor]: readonly [number, number]): boolean {
  const [ownMajor = 0, ownMinor = 0] = version.split(/[.-]/).map(Number)
  return ownMajor > major || (ownMajor === major && ownMinor >= minor)
}
