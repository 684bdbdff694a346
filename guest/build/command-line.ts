/**
 * The kernel's command line. It is measured (PCR 9, launch digest), and through the root hash in it so is the whole root
 * file system; a change of one character is another guest.
 */
import type { GuestPlatform } from './guest-image.ts'
import { VERITY_BLOCK } from './verity.ts'

export interface VerityRoot {
  readonly rootHash: string
  readonly salt: string
  readonly dataBlocks: number
}

const SECTOR = 512

/** One mapped device named `root`, made by the kernel itself (Documentation/admin-guide/device-mapper/dm-init.rst). */
function rootDevice(root: VerityRoot): string {
  const { dataBlocks, rootHash, salt } = root
  const sectors = dataBlocks * (VERITY_BLOCK / SECTOR)
  const blocks = `${VERITY_BLOCK} ${VERITY_BLOCK} ${dataBlocks} ${dataBlocks}`
  // A block that does not match stops the machine: going on with an error would let the host choose what fails.
  return `root,,,ro,0 ${sectors} verity 1 /dev/vda /dev/vda ${blocks} sha256 ${rootHash} ${salt} 1 panic_on_corruption`
}

export function commandLine(root: VerityRoot, platform: GuestPlatform): string {
  return [
    `dm-mod.create="${rootDevice(root)}"`,
    'root=/dev/dm-0 rootfstype=erofs ro init=/sbin/init',
    // Level 0 holds in a panic too: registers and stacks of the guest are not for the host, which reads the console.
    'console=ttyS0 quiet loglevel=0 panic=-1',
    // The check waits for ten ticks, and an emulator on a busy machine may be late: 1 boot of 200 ended there.
    'no_timer_check',
    // The seed that the loader passes is the host's or the firmware's: mixed in, but no credit.
    'random.trust_bootloader=off',
    `caisson.platform=${platform}`,
  ].join(' ')
}
