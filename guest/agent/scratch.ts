/**
 * The scratch disk: encrypted and authenticated with keys that only this guest's kernel has, made afresh at every start, so
 * its content ends with the guest. The host can see that it is written to, and can break it, which is then an I/O error.
 */
import { UnavailableError } from '#protocol/errors'
import type { Platform } from '../platform/platform.ts'

const SERIAL = 'scratch'
const MAPPED_NAME = 'scratch'
const MKFS = '/usr/sbin/mke2fs'
export const SCRATCH_DIR = '/run/caisson/scratch'

/** Mounts it and answers with its directory. Throws `UnavailableError` ERR_SCRATCH_MISSING or ERR_SCRATCH. */
export async function prepareScratch(platform: Pick<Platform, 'storage' | 'files' | 'processes'>): Promise<string> {
  const { storage, files, processes } = platform
  const disk = await storage.findDisk(SERIAL)
  if (disk === undefined) {
    throw new UnavailableError('ERR_SCRATCH_MISSING', `no disk has the serial number ${SERIAL}`, {
      hint: 'Images are kept on it: start the virtual machine with a scratch disk.',
    })
  }
  const mapped = await storage.openScratch(MAPPED_NAME, disk)
  // No journal: after a crash there is nobody who could read it. No backups of the superblock: they are parts of blocks that
  // nobody has written before.
  const features = ['-O', '^has_journal,^orphan_file,^resize_inode,sparse_super2', '-b', '4096', '-m', '0']
  const extended = ['-E', 'lazy_itable_init=1,nodiscard,num_backup_sb=0']
  const made = await processes.run(MKFS, ['-q', '-F', '-t', 'ext4', ...features, ...extended, mapped])
  if (made.code !== 0) {
    const said = new TextDecoder().decode(made.stderr).trim().slice(0, 500)
    throw new UnavailableError('ERR_SCRATCH', `the scratch disk: mke2fs exited with ${made.code}: ${said}`, {
      hint: 'Give the virtual machine a larger scratch disk, on storage that can be written: at least 64 MiB.',
    })
  }
  await files.mkdir(SCRATCH_DIR, 0o700)
  await storage.mount({
    source: mapped,
    target: SCRATCH_DIR,
    type: 'ext4',
    flags: ['nodev', 'nosuid', 'noatime'],
    // What was never written cannot be read, so nothing is read ahead of need.
    data: 'noinit_itable,inode_readahead_blks=0',
  })
  for (const folder of ['layers', 'containers', 'volumes']) await files.mkdir(`${SCRATCH_DIR}/${folder}`, 0o711)
  return SCRATCH_DIR
}
