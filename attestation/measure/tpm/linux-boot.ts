/** A Linux kernel as QEMU hands it to the firmware with `-kernel` (x86 boot protocol, Documentation/arch/x86/boot.rst). */
import { ByteReader } from '#protocol/byte-reader'
import { concatBytes } from '#protocol/encoding'
import { MalformedError, UsageError } from '#protocol/errors'

const HEADER_MAGIC_OFFSET = 0x202
const HEADER_MAGIC = 0x5372_6448 // HdrS
const TYPE_OF_LOADER = 0x210
const LOADFLAGS = 0x211
const HEAP_END_PTR = 0x224
const CMD_LINE_PTR = 0x228
const MIN_PROTOCOL = 0x0202

/**
 * The kernel file with the setup header as QEMU (up to 9.x, without `-initrd`) fills it in before the firmware reads it.
 * Throws `MalformedError` ERR_KERNEL_IMAGE.
 */
export function kernelAsLoaded(kernel: Uint8Array): Uint8Array {
  if (kernel.length < 0x1000) throw new MalformedError('ERR_KERNEL_IMAGE', `kernel of ${kernel.length} bytes`)
  const header = new ByteReader(kernel, 'kernel')
  header.skip(HEADER_MAGIC_OFFSET)
  if (header.u32le() !== HEADER_MAGIC) throw new MalformedError('ERR_KERNEL_IMAGE', 'not a bzImage: no setup header')
  const protocol = header.u16le()
  if (protocol < MIN_PROTOCOL) {
    throw new MalformedError('ERR_KERNEL_IMAGE', `boot protocol 0x${protocol.toString(16)} is too old`)
  }
  const loaded = new Uint8Array(kernel) // a Buffer's slice would change the caller's bytes
  loaded[TYPE_OF_LOADER] = 0xb0 // QEMU
  loaded[LOADFLAGS] = (loaded[LOADFLAGS] ?? 0) | 0x80 // CAN_USE_HEAP
  loaded.set([0x00, 0xfe], HEAP_END_PTR)
  loaded.set([0x00, 0x00, 0x02, 0x00], CMD_LINE_PTR)
  return loaded
}

/**
 * LoadOptions as the kernel's EFI stub measures them: UTF-16LE with the terminating zero.
 * Throws `UsageError` ERR_COMMAND_LINE for a command line that would not arrive as it is written.
 */
export function loadOptions(commandLine: string): Uint8Array {
  const refuse = (why: string): never => {
    throw new UsageError('ERR_COMMAND_LINE', `kernel command line: ${why}`)
  }
  // Firmware widens bytes to UCS-2 one by one, so only ASCII survives.
  if (!/^[\x20-\x7e]*$/.test(commandLine)) refuse('only printable ASCII arrives unchanged')
  if (commandLine.length > 2046) refuse(`${commandLine.length} characters, limit 2046`)
  // QEMU reads it and changes the kernel's header, which PCR 4 measures.
  if (/(?:^|\s)vga=/.test(commandLine)) refuse('vga= changes the kernel image that is measured')
  return concatBytes(...Array.from(`${commandLine}\0`, (letter) => Uint8Array.of(letter.charCodeAt(0), 0)))
}
