/** TPMT_SIGNATURE (TPM 2.0 part 2, section 11.3.4): RSASSA, RSAPSS and ECDSA. */
import { ByteReader } from '#protocol/byte-reader'
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { MalformedError } from '#protocol/errors'
import { hashAlgorithm, TPM_ALG } from './algorithms.ts'

export type TpmSignature =
  | { readonly scheme: 'rsassa' | 'rsapss'; readonly hash: HashAlgorithm; readonly signature: Uint8Array }
  | { readonly scheme: 'ecdsa'; readonly hash: HashAlgorithm; readonly r: Uint8Array; readonly s: Uint8Array }

/** Longest RSA signature accepted, for 4096-bit keys. */
const MAX_SIGNATURE = 512

/** Throws `MalformedError` ERR_TPM_SIGNATURE_SCHEME, ERR_TPM_ALGORITHM, ERR_TRUNCATED or ERR_TRAILING_BYTES. */
export function parseTpmSignature(bytes: Uint8Array): TpmSignature {
  const reader = new ByteReader(bytes, 'TPMT_SIGNATURE')
  const algorithm = reader.u16be()
  const scheme = SCHEMES[algorithm]
  if (scheme === undefined) {
    throw new MalformedError('ERR_TPM_SIGNATURE_SCHEME', `TPMT_SIGNATURE: scheme 0x${algorithm.toString(16)}`)
  }
  const hash = hashAlgorithm(reader.u16be(), 'TPMT_SIGNATURE hash')
  const signature: TpmSignature =
    scheme === 'ecdsa'
      ? { scheme, hash, r: number(reader), s: number(reader) }
      : { scheme, hash, signature: number(reader) }
  reader.end()
  return signature
}

const SCHEMES: Readonly<Record<number, 'rsassa' | 'rsapss' | 'ecdsa'>> = {
  [TPM_ALG.RSASSA]: 'rsassa',
  [TPM_ALG.RSAPSS]: 'rsapss',
  [TPM_ALG.ECDSA]: 'ecdsa',
}

function number(reader: ByteReader): Uint8Array {
  const length = reader.u16be()
  if (length === 0 || length > MAX_SIGNATURE) {
    throw new MalformedError('ERR_TPM_SIGNATURE_SCHEME', `TPMT_SIGNATURE: a number of ${length} bytes`)
  }
  return reader.bytes(length)
}
