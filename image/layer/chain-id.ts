import type { CryptoProvider } from '#protocol/crypto-provider'
import { computeDigest, type Digest } from '#protocol/oci/digest'

/**
 * Names the result of applying layers, base first (image-spec 1.1 config.md, "Layer ChainID"). No layers at all, which
 * the specification leaves open, are named by the digest of nothing.
 */
export function chainId(crypto: CryptoProvider, diffIds: readonly Digest[]): Digest {
  const text = new TextEncoder()
  const [base = computeDigest(crypto, new Uint8Array(0)), ...upper] = diffIds
  return upper.reduce((below, diffId) => computeDigest(crypto, text.encode(`${below} ${diffId}`)), base)
}
