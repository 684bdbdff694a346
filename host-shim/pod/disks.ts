/** The two disks that the host writes for a pod: initdata, and empty scratch. */
import { open, writeFile } from 'node:fs/promises'
import { UsageError } from '#protocol/errors'

/** "CSINITD1", u64 little-endian length, the TOML verbatim, zeros up to a whole sector. */
const MAGIC = new TextEncoder().encode('CSINITD1')
const HEADER_BYTES = 16
const SECTOR_BYTES = 512
export const MAX_INITDATA_BYTES: number = 1024 * 1024

/** @throws UsageError ERR_INITDATA_SIZE */
export function encodeInitdataDisk(toml: Uint8Array): Uint8Array {
  if (toml.byteLength > MAX_INITDATA_BYTES) {
    throw new UsageError('ERR_INITDATA_SIZE', `initdata has ${toml.byteLength} bytes, at most ${MAX_INITDATA_BYTES}`, {
      hint: 'Keep large configuration at the verifier and name it in initdata',
    })
  }
  const sectors = Math.ceil((HEADER_BYTES + toml.byteLength) / SECTOR_BYTES)
  const disk = new Uint8Array(sectors * SECTOR_BYTES)
  disk.set(MAGIC, 0)
  new DataView(disk.buffer).setBigUint64(MAGIC.byteLength, BigInt(toml.byteLength), true)
  disk.set(toml, HEADER_BYTES)
  return disk
}

export async function writeInitdataDisk(path: string, toml: Uint8Array): Promise<void> {
  await writeFile(path, encodeInitdataDisk(toml), { mode: 0o600 })
}

/** The guest encrypts it with a key of its own; to the host it is noise. */
export async function createScratchDisk(path: string, sizeMib: number): Promise<void> {
  const file = await open(path, 'wx', 0o600)
  try {
    await file.truncate(sizeMib * 1024 * 1024)
  } finally {
    await file.close()
  }
}
