/**
 * Mounts an image folder read-only, through loop devices and its index. Before that every byte is held to the verity roots,
 * in user space, so that it works on kernels without device-mapper; what changes in the files afterwards is not seen,
 * and a folder that others may write is nothing to mount.
 */

import { verityRoot } from '#native/shared/index'
import { fromHex, toHex } from '#protocol/encoding'
import { UnavailableError, UnverifiedError, UsageError } from '#protocol/errors'
import type { ProgramResult } from '../layer/indexer.ts'
import type { SealedFile } from '../layer/store.ts'
import { type FolderImage, openImageFolder } from './image-folder.ts'
import { runProgram } from './run-program.ts'

export interface MountOptions {
  readonly folder: string
  /** An existing directory. */
  readonly target: string
  /** A file was held to its root. */
  readonly onChecked?: (path: string) => void
}

const TIMEOUT_MS = 30_000

/**
 * Throws `UnverifiedError` ERR_VERITY_MISMATCH, `UsageError` ERR_MOUNT_ROOT, `UnavailableError` ERR_MOUNT, and the errors
 * of `openImageFolder`.
 */
export async function mountImageFolder(options: MountOptions): Promise<FolderImage> {
  if (process.geteuid?.() !== 0) {
    throw new UsageError('ERR_MOUNT_ROOT', 'mounting needs root', { hint: 'Run the command with sudo.' })
  }
  const image = await openImageFolder(options.folder)
  const tars = image.index.devices.flatMap((position) => image.layers[position]?.tar ?? [])
  for (const file of [image.index, ...tars]) {
    await checkVerity(file)
    options.onChecked?.(file.path)
  }
  const loops: string[] = []
  try {
    for (const { path } of [image.index, ...tars]) {
      const { stdout } = await tool('losetup', ['--read-only', '--find', '--show', path])
      loops.push(new TextDecoder().decode(stdout).trim())
    }
    const [index = '', ...devices] = loops
    const data = ['ro', 'nodev', 'nosuid', ...devices.map((device) => `device=${device}`)].join(',')
    await tool('mount', ['-t', 'erofs', '-o', data, index, options.target])
  } finally {
    // A device in use goes with its last user, which is the mount.
    for (const loop of loops) await tool('losetup', ['--detach', loop])
  }
  return image
}

/** Holds a file to its root. Throws `UnverifiedError` ERR_VERITY_MISMATCH. */
export async function checkVerity({ path, verity }: SealedFile): Promise<void> {
  const { dataBlockSize, dataBlocks, salt, rootHash } = verity
  const { outcome, tree } = await verityRoot(path, dataBlockSize, fromHex(salt, 'salt'), dataBlocks * dataBlockSize)
  if (outcome.status === 'ok' && toHex(tree.rootHash) === rootHash) return
  const why = outcome.status === 'ok' ? 'its content is not what was pulled' : `it cannot be read whole`
  throw new UnverifiedError('ERR_VERITY_MISMATCH', `${path}: ${why}`, {
    hint: 'Remove the folder and pull the image again.',
  })
}

async function tool(name: string, args: readonly string[]): Promise<ProgramResult> {
  const result = await runProgram(name, args, { timeoutMs: TIMEOUT_MS })
  if (result.code === 0) return result
  const said = new TextDecoder().decode(result.stderr).trim().slice(-300)
  throw new UnavailableError('ERR_MOUNT', `${name} exits with ${result.code}: ${said}`, {
    hint: 'The kernel needs EROFS (5.19 or later for these indexes) and loop devices, and the target must be a directory.',
  })
}
