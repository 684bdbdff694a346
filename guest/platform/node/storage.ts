/** `Storage` on Node and the guest addon. There is no udev: devtmpfs makes the nodes the kernel announces. */
import { statfs } from 'node:fs/promises'
import {
  attachLoop,
  blockDeviceSize,
  createEncrypted,
  createMapped,
  detachLoop,
  mount,
  removeMapped,
  unmount,
} from '#native/guest/index'
import type { Files, Storage } from '../platform.ts'

const SECTOR_BYTES = 512
/** virtio-blk serial numbers have at most 20 bytes. */
const MAX_SERIAL_BYTES = 64

export function nodeStorage(files: Files): Storage {
  return {
    mount: ({ source, target, type, flags, data }) => mount(source, target, { type, flags, data }),
    unmount: (target) => unmount(target, true),
    // Buffered: what was just pulled is still in the page cache when it is mounted.
    attachLoop: (file, { readOnly }) => attachLoop(file, { readOnly, directIo: false }),
    detachLoop,
    openVerity: (name, device) => {
      const { data, hash, dataBlockSize, hashBlockSize, dataBlocks, hashOffset, rootHash, salt } = device
      // Documentation/admin-guide/device-mapper/verity.rst; a block that does not match must not be served as an error
      // that a program might survive.
      const parameters = `1 ${data} ${hash} ${dataBlockSize} ${hashBlockSize} ${dataBlocks} ${hashOffset / hashBlockSize} sha256 ${rootHash} ${salt === '' ? '-' : salt} 1 panic_on_corruption`
      const sectors = (dataBlocks * dataBlockSize) / SECTOR_BYTES
      return createMapped(name, 'verity', parameters, { sectors, readOnly: true })
    },
    openScratch: (name, device) => createEncrypted(name, device),
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
