/**
 * The list of hand-off blocks that QEMU gives to a TD (UEFI Platform Initialization 1.7, volume 3, section 5): which memory
 * there is, and which of it was added before the start. OVMF measures it, without the block that ends it.
 */
import { concatBytes } from '#protocol/encoding'
import { UsageError } from '#protocol/errors'
import type { Tdvf } from './tdvf.ts'

const MIB = 2n ** 20n
const FOUR_GIB = 2n ** 32n
/** From this size on, q35 puts only 2 GiB below 4 GiB. */
const SPLIT = 0xb000_0000n
const LOW_WHEN_SPLIT = 0x8000_0000n
const HANDOFF = 1
const RESOURCE = 3
const HANDOFF_BYTES = 56
const RESOURCE_BYTES = 48
/** EFI_RESOURCE_SYSTEM_MEMORY and EFI_RESOURCE_MEMORY_UNACCEPTED. */
const ADDED = 0
const UNACCEPTED = 7
/** Present, initialised, tested. */
const ATTRIBUTES = 7
const END_BYTES = 8
const MAX_MEMORY_MIB = 16 * 1024 * 1024

interface Range {
  readonly start: bigint
  readonly end: bigint
  readonly added: boolean
}

/** Bytes that are measured. Throws `UsageError` ERR_MEMORY_SIZE. @param memoryMib of the machine (QEMU's -m) */
export function tdHob({ sections }: Tdvf, memoryMib: number): Uint8Array {
  if (!Number.isInteger(memoryMib) || memoryMib < 64 || memoryMib > MAX_MEMORY_MIB) {
    throw new UsageError('ERR_MEMORY_SIZE', `${memoryMib} MiB of memory, 64 to ${MAX_MEMORY_MIB} can be measured`)
  }
  const memory = BigInt(memoryMib) * MIB
  const low = memory >= SPLIT ? LOW_WHEN_SPLIT : memory
  const added = sections
    .filter(({ type }) => type === 'TD_HOB' || type === 'TempMem')
    .map(({ gpa, memoryBytes }) => ({ start: gpa, end: gpa + BigInt(memoryBytes) }))
    .sort((a, b) => (a.start < b.start ? -1 : 1))
  const ranges = [...split(low, added)]
  if (memory > low) ranges.push({ start: FOUR_GIB, end: FOUR_GIB + memory - low, added: false })
  const address = sections.find(({ type }) => type === 'TD_HOB')?.gpa ?? 0n
  const bytes = HANDOFF_BYTES + ranges.length * RESOURCE_BYTES
  return concatBytes(handoff(address + BigInt(bytes + END_BYTES)), ...ranges.map(resource))
}

/** Memory below 4 GiB, cut where the VMM added pages. */
function* split(low: bigint, added: readonly Omit<Range, 'added'>[]): Generator<Range> {
  let at = 0n
  for (const { start, end } of added) {
    if (start > at) yield { start: at, end: start, added: false }
    yield { start, end, added: true }
    at = end
  }
  if (low > at) yield { start: at, end: low, added: false }
}

/** EFI_HOB_HANDOFF_INFO_TABLE of version 9, of which QEMU fills in the end alone. */
function handoff(end: bigint): Uint8Array {
  const { bytes, view } = block(HANDOFF, HANDOFF_BYTES)
  view.setUint32(8, 9, true)
  view.setBigUint64(48, end, true)
  return bytes
}

/** EFI_HOB_RESOURCE_DESCRIPTOR without an owner. */
function resource({ start, end, added }: Range): Uint8Array {
  const { bytes, view } = block(RESOURCE, RESOURCE_BYTES)
  view.setUint32(24, added ? ADDED : UNACCEPTED, true)
  view.setUint32(28, ATTRIBUTES, true)
  view.setBigUint64(32, start, true)
  view.setBigUint64(40, end - start, true)
  return bytes
}

function block(type: number, length: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(length)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, type, true)
  view.setUint16(2, length, true)
  return { bytes, view }
}
