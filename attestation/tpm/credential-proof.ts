/** The proof that the guest recovered the credential's secret: bound to this exchange, and without sending the secret. */
import type { CryptoProvider } from '#protocol/crypto-provider'
import { concatBytes } from '#protocol/encoding'

const BLOCK_BYTES = 64

/** HMAC-SHA256(secret, report-data digest) (RFC 2104). @param secret at most 64 bytes */
export function credentialProof(crypto: CryptoProvider, secret: Uint8Array, reportData: Uint8Array): Uint8Array {
  if (secret.length > BLOCK_BYTES) throw new RangeError(`secret of ${secret.length} bytes`)
  const pad = (value: number): Uint8Array => {
    const block = new Uint8Array(BLOCK_BYTES).fill(value)
    secret.forEach((byte, index) => {
      block[index] = byte ^ value
    })
    return block
  }
  const inner = sha256(crypto, concatBytes(pad(0x36), reportData))
  return sha256(crypto, concatBytes(pad(0x5c), inner))
}

function sha256(crypto: CryptoProvider, bytes: Uint8Array): Uint8Array {
  const hash = crypto.createHash('sha256')
  hash.update(bytes)
  return hash.digest()
}
