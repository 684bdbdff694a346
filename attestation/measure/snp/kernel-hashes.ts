/**
 * The table of hashes by which OVMF checks kernel, initrd and command line of a direct boot. QEMU writes it into guest
 * memory before launch, so the launch digest covers it (QEMU target/i386/sev.c, OvmfPkg/AmdSev/BlobVerifierLibSevHashes).
 */
import { hash } from 'node:crypto'
import { concatBytes, fromHex } from '#protocol/encoding'
import { UsageError } from '#protocol/errors'
import { PAGE_BYTES } from './sev-firmware.ts'

export interface DirectBoot {
  /** The whole file. */
  readonly kernel: Uint8Array
  /** Absent stands for an empty one. */
  readonly initrd?: Uint8Array
  readonly cmdline: string
}

/** GUIDs as they lie in memory, hex. */
const GUID = {
  table: '06d63894224fc94cb479a793d411fd21',
  cmdline: 'd82dd09720bd944caa78e7714d36ab2a',
  initrd: '31f7ba442f3ad74b9af141e29169781d',
  kernel: '3794e74dd2ab7f42b835d5b172d2045b',
} as const

const ENTRY_BYTES = 50
const TABLE_BYTES = 18 + 3 * ENTRY_BYTES
/** The table's length rounded up to 16: memory is encrypted in blocks of this size. */
const PADDED_TABLE_BYTES = 176

export function kernelHashTable({ kernel, initrd = new Uint8Array(), cmdline }: DirectBoot): Uint8Array {
  if (cmdline.includes('\0')) throw new UsageError('ERR_SNP_CMDLINE', 'a kernel command line cannot contain NUL')
  const table = new Uint8Array(PADDED_TABLE_BYTES)
  table.set(
    concatBytes(
      header(GUID.table, TABLE_BYTES),
      entry(GUID.cmdline, new TextEncoder().encode(`${cmdline}\0`)),
      entry(GUID.initrd, initrd),
      entry(GUID.kernel, kernel),
    ),
  )
  return table
}

/** The page that holds the table at the place where the firmware looks for it. */
export function kernelHashPage(boot: DirectBoot, tableGpa: number): Uint8Array {
  const offset = tableGpa % PAGE_BYTES
  if (offset + PADDED_TABLE_BYTES > PAGE_BYTES) {
    throw new UsageError('ERR_SNP_KERNEL_HASHES', `a table of hashes at offset ${offset} does not fit into its page`)
  }
  const page = new Uint8Array(PAGE_BYTES)
  page.set(kernelHashTable(boot), offset)
  return page
}

function entry(guid: string, measured: Uint8Array): Uint8Array {
  return concatBytes(header(guid, ENTRY_BYTES), hash('sha256', measured, 'buffer'))
}

function header(guid: string, bytes: number): Uint8Array {
  return concatBytes(fromHex(guid, 'GUID'), new Uint8Array([bytes & 0xff, bytes >> 8]))
}
