/** A kernel with an initrd as QEMU hands it to the firmware with `-kernel` and `-initrd` on q35 (hw/i386/x86-common.c). */
import { UsageError } from '#protocol/errors'
import { kernelAsLoaded } from '../tpm/linux-boot.ts'

const RAMDISK_IMAGE = 0x218
const RAMDISK_SIZE = 0x21c
const PROTOCOL = 0x206
const INITRD_ADDR_MAX = 0x22c
const XLOADFLAGS = 0x236
const CAN_BE_LOADED_ABOVE_4G = 2
const ABOVE_4G_PROTOCOL = 0x20c
const ADDR_MAX_PROTOCOL = 0x203
const OLD_ADDR_MAX = 0x37ff_ffff
/** Kept free for ACPI tables at the end of the memory below 4 GiB. */
const ACPI_DATA_BYTES = 0x2_8000
const MIB = 1024 * 1024
const SPLIT = 0xb000_0000
const LOW_WHEN_SPLIT = 0x8000_0000

/**
 * The file with the setup header as QEMU fills it in; where the initrd goes depends on the memory.
 * Throws `MalformedError` ERR_KERNEL_IMAGE, `UsageError` ERR_MEMORY_SIZE.
 */
export function kernelWithInitrd(kernel: Uint8Array, initrdBytes: number, memoryMib: number): Uint8Array {
  const loaded = kernelAsLoaded(kernel)
  if (initrdBytes === 0) return loaded
  const view = new DataView(loaded.buffer, loaded.byteOffset, loaded.byteLength)
  const memory = memoryMib * MIB
  const low = memory >= SPLIT ? LOW_WHEN_SPLIT : memory
  const most = Math.min(addressLimit(view), low - ACPI_DATA_BYTES - 1)
  if (initrdBytes >= most) {
    throw new UsageError('ERR_MEMORY_SIZE', `an initrd of ${initrdBytes} bytes in ${memoryMib} MiB of memory`)
  }
  const address = most - initrdBytes
  view.setUint32(RAMDISK_IMAGE, address - (address % 4096), true)
  view.setUint32(RAMDISK_SIZE, initrdBytes, true)
  return loaded
}

function addressLimit(header: DataView): number {
  const protocol = header.getUint16(PROTOCOL, true)
  const above = protocol >= ABOVE_4G_PROTOCOL && (header.getUint16(XLOADFLAGS, true) & CAN_BE_LOADED_ABOVE_4G) !== 0
  if (above) return 0xffff_ffff
  return protocol >= ADDR_MAX_PROTOCOL ? header.getUint32(INITRD_ADDR_MAX, true) : OLD_ADDR_MAX
}
