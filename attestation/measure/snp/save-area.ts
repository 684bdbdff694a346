/**
 * The state in which a vCPU starts, as the page that is measured: VMSA (AMD 24593 APM volume 2, table B-4), with the values
 * that KVM and the VMM put there. Little-endian; every byte not written here is zero.
 */
import { PAGE_BYTES } from './sev-firmware.ts'

/** Who starts the guest: they differ in the state that they leave in a vCPU. */
export type Vmm = 'qemu' | 'ec2' | 'gce'

export interface StartState {
  /** First instruction. */
  readonly eip: number
  /** SEV_FEATURES; 0 for SEV-ES. */
  readonly features: bigint
  /** EAX of CPUID leaf 1. */
  readonly signature: number
  readonly vmm: Vmm
}

/** The boot processor starts at the reset vector. */
export const RESET_EIP = 0xffff_fff0

interface Segment {
  readonly selector?: number
  readonly attributes: number
  readonly limit?: number
  readonly base?: number
}

/** What differs between the VMMs. */
interface VmmState {
  readonly cs: number
  readonly csAtReset: number
  readonly ss: number
  readonly tr: number
  /** PAT MSR. */
  readonly pat: bigint
  /** Undefined: the CPU's signature. */
  readonly rdx: number | undefined
  readonly mxcsr: number
  readonly fcw: number
}

const DEFAULT_PAT = 0x0007_0406_0007_0406n
const QEMU: VmmState = {
  cs: 0x9b,
  csAtReset: 0x9b,
  ss: 0x93,
  tr: 0x8b,
  pat: DEFAULT_PAT,
  rdx: undefined,
  mxcsr: 0x1f80,
  fcw: 0x037f,
}
const VMM_STATES: Readonly<Record<Vmm, VmmState>> = {
  qemu: QEMU,
  ec2: { ...QEMU, csAtReset: 0x9a, ss: 0x92, tr: 0x83, rdx: 0x600, mxcsr: 0, fcw: 0 },
  gce: { ...QEMU, pat: 0x0007_0106n, rdx: 0x600, mxcsr: 0, fcw: 0 },
}

const SEGMENT = {
  es: 0x000,
  cs: 0x010,
  ss: 0x020,
  ds: 0x030,
  fs: 0x040,
  gs: 0x050,
  gdtr: 0x060,
  ldtr: 0x070,
  idtr: 0x080,
  tr: 0x090,
} as const

const REGISTER = {
  efer: 0x0d0,
  cr4: 0x148,
  cr0: 0x158,
  dr7: 0x160,
  dr6: 0x168,
  rflags: 0x170,
  rip: 0x178,
  pat: 0x268,
  rdx: 0x310,
  features: 0x3b0,
  xcr0: 0x3e8,
} as const

const MXCSR = 0x408
const FCW = 0x410
const REAL_MODE_LIMIT = 0xffff

/** A vCPU in real mode: what OVMF starts from. */
export function saveArea(state: StartState): Uint8Array {
  const vmm = VMM_STATES[state.vmm]
  const data: Segment = { attributes: 0x93 }
  const cs = state.eip === RESET_EIP ? vmm.csAtReset : vmm.cs
  return write(
    state,
    {
      es: data,
      cs: { selector: 0xf000, attributes: cs, base: (state.eip & 0xffff_0000) >>> 0 },
      ss: { attributes: vmm.ss },
      ds: data,
      fs: data,
      gs: data,
      tr: { attributes: vmm.tr },
    },
    { cr0: 0x10n, rip: BigInt(state.eip & 0xffff) },
  )
}

/**
 * A vCPU in 32-bit protected mode with flat segments: what QEMU gives an SVSM. KVM writes the floating-point control word here
 * as everywhere (since Linux 6.9); a calculator that leaves it zero computes another digest.
 */
export function svsmSaveArea(state: StartState): Uint8Array {
  const data: Segment = { selector: 16, attributes: 0xc93, limit: 0xffff_ffff }
  return write(
    state,
    {
      es: data,
      cs: { selector: 8, attributes: 0xc9b, limit: 0xffff_ffff },
      ss: data,
      ds: data,
      fs: data,
      gs: { attributes: 0x93 },
      tr: { attributes: 0x8b },
    },
    { cr0: 0x11n, rip: BigInt(state.eip) },
  )
}

function write(
  { vmm: name, signature, features }: StartState,
  segments: Readonly<Record<'es' | 'cs' | 'ss' | 'ds' | 'fs' | 'gs' | 'tr', Segment>>,
  mode: { readonly cr0: bigint; readonly rip: bigint },
): Uint8Array {
  const vmm = VMM_STATES[name]
  const page = new Uint8Array(PAGE_BYTES)
  const view = new DataView(page.buffer)
  const descriptors = { gdtr: { attributes: 0 }, idtr: { attributes: 0 }, ldtr: { attributes: 0x82 }, ...segments }
  for (const name of Object.keys(SEGMENT) as (keyof typeof SEGMENT)[]) {
    writeSegment(view, SEGMENT[name], descriptors[name])
  }
  const registers: Record<keyof typeof REGISTER, bigint> = {
    efer: 0x1000n, // SVME, which KVM always sets
    cr4: 0x40n, // MCE, likewise
    dr7: 0x400n,
    dr6: 0xffff_0ff0n,
    rflags: 2n,
    pat: vmm.pat,
    rdx: BigInt(vmm.rdx ?? signature),
    features,
    xcr0: 1n,
    ...mode,
  }
  for (const name of Object.keys(REGISTER) as (keyof typeof REGISTER)[]) {
    view.setBigUint64(REGISTER[name], registers[name], true)
  }
  view.setUint32(MXCSR, vmm.mxcsr, true)
  view.setUint16(FCW, vmm.fcw, true)
  return page
}

function writeSegment(view: DataView, offset: number, segment: Segment): void {
  view.setUint16(offset, segment.selector ?? 0, true)
  view.setUint16(offset + 2, segment.attributes, true)
  view.setUint32(offset + 4, segment.limit ?? REAL_MODE_LIMIT, true)
  view.setBigUint64(offset + 8, BigInt(segment.base ?? 0), true)
}
