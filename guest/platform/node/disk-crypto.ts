/** `DiskCrypto` on Node's OpenSSL. */
import { createCipheriv, createDecipheriv, pbkdf2 } from 'node:crypto'
import { promisify } from 'node:util'
import { nodeCrypto } from '#protocol/node/crypto'
import type { DiskCrypto } from '../../luks/keyslot.ts'

const SECTOR_BYTES = 512
const derive = promisify(pbkdf2)

export const nodeDiskCrypto: DiskCrypto = {
  ...nodeCrypto,
  pbkdf2: async (secret, { hash, iterations, salt }, bytes) =>
    new Uint8Array(await derive(secret, salt, iterations, bytes, hash)),
  xts: (direction, key, sectors) => {
    const output = new Uint8Array(sectors.byteLength)
    const tweak = Buffer.alloc(16)
    for (let at = 0; at < sectors.byteLength; at += SECTOR_BYTES) {
      tweak.writeBigUInt64LE(BigInt(at / SECTOR_BYTES))
      const cipher =
        direction === 'encrypt'
          ? createCipheriv('aes-256-xts', key, tweak)
          : createDecipheriv('aes-256-xts', key, tweak)
      output.set(cipher.update(sectors.subarray(at, at + SECTOR_BYTES)), at)
    }
    return output
  },
}
