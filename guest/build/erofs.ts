/** Turns the tar of the root into the image that the kernel mounts: erofs, then its verity tree in the same file. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { appendFile, rm, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { errorText, UnavailableError } from '#protocol/errors'
import { encodeTar, type TarEntry } from '../rootfs/tar.ts'
import { VERITY_BLOCK, VerityBuilder } from './verity.ts'

const run = promisify(execFile)

/**
 * Fixed, so that equal roots are equal bytes. The salt need not be secret or fresh: it keeps digests of this tree from
 * meaning anything elsewhere.
 */
const UUID = '5f3ad5f5-0c95-4b3c-8a1d-0d7f9bd5b3c1'
const SALT = createHash('sha256').update('caisson root file system').digest()

/**
 * Kernel to Node's first line under emulation, two processors, this root (121 MB of files), median of three:
 * uncompressed 3.3 s (every byte is hashed by dm-verity), lz4hc in clusters of 4, 16, 32, 64 KiB 2.85, 2.84, 2.75, 2.77 s
 * (66.6, 59.4, 56.5, 54.7 MB), 1 MiB 3.5 s, zstd 64 KiB 2.84 s (44.4 MB, and a decompressor more in the kernel).
 */
const COMPRESSION = ['-zlz4hc,9', `-C${64 << 10}`]

export interface RootImage {
  readonly rootHash: string
  readonly salt: string
  readonly dataBlocks: number
  /** Byte offset of the tree. */
  readonly hashOffset: number
  /** Bytes, tree included. */
  readonly size: number
}

/** Writes the image to `file`. `mkfs` is the path of mkfs.erofs. Throws ERR_ROOTFS_IMAGE when that program fails. */
export async function writeRootImage(entries: readonly TarEntry[], file: string, mkfs: string): Promise<RootImage> {
  const tar = `${file}.tar`
  try {
    await writeFile(tar, encodeTar(entries))
    await run(mkfs, ['--quiet', '--tar=f', '-T0', '--all-root', `-U${UUID}`, ...COMPRESSION, file, tar])
  } catch (cause) {
    throw new UnavailableError('ERR_ROOTFS_IMAGE', `mkfs.erofs failed: ${errorText(cause)}`, { cause })
  } finally {
    await rm(tar, { force: true })
  }
  const builder = new VerityBuilder(SALT)
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) builder.push(chunk)
  const { rootHash, dataBlocks, tree } = builder.finish()
  await appendFile(file, tree)
  const hashOffset = dataBlocks * VERITY_BLOCK
  return { rootHash, salt: SALT.toString('hex'), dataBlocks, hashOffset, size: hashOffset + tree.length }
}
