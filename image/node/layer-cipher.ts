/** `LayerCipher` on OpenSSL. */
import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto'
import type { LayerCipher } from '../encryption/cipher.ts'

const TAG_BYTES = 16

export const nodeLayerCipher: LayerCipher = {
  counterMode(key, counter) {
    const cipher = createCipheriv('aes-256-ctr', key, counter)
    return (bytes) => cipher.update(bytes)
  },

  hmacSha256(key) {
    const hmac = createHmac('sha256', key)
    return { update: (bytes) => void hmac.update(bytes), digest: () => hmac.digest() }
  },

  openGcm(key, iv, sealed) {
    if (sealed.length < TAG_BYTES) return undefined
    const end = sealed.length - TAG_BYTES
    const decipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES })
    decipher.setAuthTag(sealed.subarray(end))
    const plain = decipher.update(sealed.subarray(0, end))
    try {
      decipher.final()
      return plain
    } catch {
      return undefined
    }
  },

  sealGcm(key, iv, plain) {
    const cipher = createCipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES })
    return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()])
  },
}
