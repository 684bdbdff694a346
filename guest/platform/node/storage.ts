/** `Storage` on Node and the guest addon. There is no udev: devtmpfs makes the nodes the kernel announces. */
import { constants } from 'node:fs'
import { open, statfs } from 'node:fs/promises'
import {
  attachLoop,
  bindInRoot,
  blockDeviceSize,
  createCrypt,
  createScratch,
  createVerity,
  detachLoop,
  mount,
  removeMapped,
  SyscallError,
  unmount,
} from '#native/guest/index'
import { errorText, UnavailableError } from '#protocol/errors'
import type { Files, Storage } from '../platform.ts'

const SECTOR_BYTES = 512
/** virtio-blk serial numbers have at most 20 bytes. */
const MAX_SERIAL_BYTES = 64

export function nodeStorage(files: Files): Storage {
  return {
    mount: ({ source, target, type, flags, data }) => mount(source, target, { type, flags, data }),
    unmount: (target) => unmount(target, true),
    bindInRoot: async ({ root, path, target, make }) => {
      try {
        await bindInRoot(root, path, target, make)
      } catch (cause) {
        if (!(cause instanceof SyscallError)) throw cause
        throw new UnavailableError('ERR_VOLUME_PATH', `${path} cannot be mounted out of its volume: ${cause.errno}`, {
          hint: 'Only files and directories inside the volume can be mounted; in volumes that the host fills they must exist.',
          cause,
        })
      }
    },
    // Buffered where a layer is read: what was just pulled is still in the page cache. A volume's own file system has a
    // page cache, and need not be kept twice.
    attachLoop: (file, { readOnly }) => attachLoop(file, { readOnly, directIo: !readOnly }),
    detachLoop,
    openVerity: (name, device) => {
      const { data, hash, dataBlockSize, hashBlockSize, dataBlocks, hashOffset, rootHash, salt } = device
      // Documentation/admin-guide/device-mapper/verity.rst; a block that does not match must not be served as an error
      // that a program might survive.
      const parameters = `1 ${data} ${hash} ${dataBlockSize} ${hashBlockSize} ${dataBlocks} ${hashOffset / hashBlockSize} sha256 ${rootHash} ${salt === '' ? '-' : salt} 1 panic_on_corruption`
      const sectors = (dataBlocks * dataBlockSize) / SECTOR_BYTES
      return createVerity(name, parameters, sectors)
    },
    openScratch: async (name, device) => {
      try {
        return await createScratch(name, device)
      } catch (cause) {
        if (!(cause instanceof SyscallError)) throw cause
        throw new UnavailableError('ERR_SCRATCH', `the scratch disk cannot be set up: ${cause.errno}`, {
          hint: 'Give the virtual machine a larger scratch disk, on storage that can be read and written: at least 64 MiB.',
          cause,
        })
      }
    },
    openCrypt: (name, { device, key, offset, sectors, sectorBytes }) =>
      createCrypt(name, device, { key, offsetSectors: offset / SECTOR_BYTES, sectors, sectorBytes }),
    readDevice: async (path, offset, length) => {
      await using device = await open(path, constants.O_RDONLY)
      const bytes = new Uint8Array(length)
      const { bytesRead } = await device.read(bytes, 0, length, offset)
      if (bytesRead === length) return bytes
      throw new UnavailableError('ERR_VOLUME_DISK', `a disk ends before byte ${offset + length}`, {
        hint: 'Give the disk that the volume was made on.',
      })
    },
    writeDevice: async (path, offset, bytes) => {
      await using device = await open(path, constants.O_WRONLY)
      let written = 0
      try {
        // One call may take less than it was given, and says so by its count alone.
        while (written < bytes.byteLength) {
          written += (await device.write(bytes, written, bytes.byteLength - written, offset + written)).bytesWritten
        }
        await device.sync()
      } catch (cause) {
        const message = `a disk cannot be written, from byte ${offset + written} on: ${errorText(cause)}`
        throw new UnavailableError('ERR_VOLUME_DISK', message, { hint: 'Give a disk that can be written.', cause })
      }
    },
    closeMapped: removeMapped,
    freeBytes: async (path) => {
      const { bavail, bsize } = await statfs(path)
      return bavail * bsize
    },
    deviceSize: blockDeviceSize,
    findDisk: async (serial) => {
      for (const name of await files.list('/sys/block')) {
        if (!/^vd[a-z]+$/.test(name)) continue
        const found = await files.readIfExists(`/sys/block/${name}/serial`, MAX_SERIAL_BYTES)
        if (found !== undefined && new TextDecoder().decode(found).trim() === serial) return `/dev/${name}`
      }
      return undefined
    },
  }
}
