/** Algorithm identifiers of the TCG algorithm registry, as far as they are spoken here. */
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { MalformedError } from '#protocol/errors'

export const TPM_ALG = {
  RSA: 0x0001,
  SHA1: 0x0004,
  AES: 0x0006,
  SHA256: 0x000b,
  SHA384: 0x000c,
  SHA512: 0x000d,
  NULL: 0x0010,
  RSASSA: 0x0014,
  RSAPSS: 0x0016,
  ECDSA: 0x0018,
  ECC: 0x0023,
  CFB: 0x0043,
} as const

/** Curves by TPM identifier; names as in X.509 and JWK. */
export const CURVES: Readonly<Record<number, 'P-256' | 'P-384' | 'P-521'>> = { 3: 'P-256', 4: 'P-384', 5: 'P-521' }
export type CurveName = 'P-256' | 'P-384' | 'P-521'

export const COORDINATE_BYTES: Readonly<Record<CurveName, number>> = { 'P-256': 32, 'P-384': 48, 'P-521': 66 }

const HASHES: Readonly<Record<number, HashAlgorithm>> = {
  [TPM_ALG.SHA1]: 'sha1',
  [TPM_ALG.SHA256]: 'sha256',
  [TPM_ALG.SHA384]: 'sha384',
  [TPM_ALG.SHA512]: 'sha512',
}

export const HASH_BYTES: Readonly<Record<HashAlgorithm, number>> = { sha1: 20, sha256: 32, sha384: 48, sha512: 64 }

/** Throws `MalformedError` ERR_TPM_ALGORITHM for anything but SHA-1 and SHA-2. */
export function hashAlgorithm(id: number, what: string): HashAlgorithm {
  const name = HASHES[id]
  if (name === undefined) {
    throw new MalformedError('ERR_TPM_ALGORITHM', `${what}: 0x${id.toString(16)} is not a known hash algorithm`)
  }
  return name
}

export function hashAlgorithmId(name: HashAlgorithm): number {
  return { sha1: TPM_ALG.SHA1, sha256: TPM_ALG.SHA256, sha384: TPM_ALG.SHA384, sha512: TPM_ALG.SHA512 }[name]
}
