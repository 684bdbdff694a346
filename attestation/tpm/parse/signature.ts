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

/** A signature as TPMT_SIGNATURE says it, or bare: RSA bytes or DER of an ECDSA signature, without a word about the hash. */
export type QuoteSignature =
  | { readonly form: 'tss'; readonly tpm: TpmSignature }
  | { readonly form: 'plain'; readonly bytes: Uint8Array }

/** Both output formats of tpm2-tools. Throws `MalformedError` ERR_TPM_SIGNATURE_SCHEME for lengths of neither. */
export function parseQuoteSignature(bytes: Uint8Array): QuoteSignature {
  const algorithm = ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0)
  if (SCHEMES[algorithm] !== undefined && bytes.length > 6) {
    try {
      return { form: 'tss', tpm: parseTpmSignature(bytes) }
    } catch (error) {
      // One bare RSA signature in 20000 begins so as well, but never also says its own length.
      if (!(error instanceof MalformedError) || !RSA_BYTES.includes(bytes.length)) throw error
    }
  }
  if (bytes.length < MIN_PLAIN || bytes.length > MAX_SIGNATURE) {
    throw new MalformedError('ERR_TPM_SIGNATURE_SCHEME', `signature of ${bytes.length} bytes`)
  }
  return { form: 'plain', bytes: bytes.slice() }
}

const RSA_BYTES: readonly number[] = [128, 256, 384, 512]
/** DER of an ECDSA signature with the smallest numbers. */
const MIN_PLAIN = 8

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
