/** Encodings in which people keep bytes in text files: hexadecimal and base64, in one line or many. */

export interface DecodedText {
  readonly encoding: 'hex' | 'base64' | 'base64url'
  readonly bytes: Uint8Array
}

/** Undefined unless the whole text is one encoding. A leading `0x` and white space between digits are accepted. */
export function decodeText(text: string): DecodedText | undefined {
  const packed = text.replace(/\s+/g, '')
  if (packed.length === 0) return undefined
  const digits = packed.replace(/^0[xX]/, '')
  if (digits.length % 2 === 0 && digits.length > 0 && /^[0-9a-fA-F]*$/.test(digits)) {
    return { encoding: 'hex', bytes: new Uint8Array(Buffer.from(digits, 'hex')) }
  }
  const unpadded = packed.replace(/={1,2}$/, '')
  const padding = packed.length - unpadded.length
  if (unpadded.length % 4 === 1 || (padding > 0 && packed.length % 4 !== 0)) return undefined
  if (/^[A-Za-z0-9+/]*$/.test(unpadded)) return canonical(unpadded, 'base64')
  return /^[A-Za-z0-9_-]*$/.test(unpadded) ? canonical(unpadded, 'base64url') : undefined
}

/** Bits beyond the last byte must be zero, or two texts would mean the same bytes. */
function canonical(unpadded: string, encoding: 'base64' | 'base64url'): DecodedText | undefined {
  const bytes = Buffer.from(unpadded, encoding)
  const again = bytes.toString(encoding).replace(/=+$/, '')
  return again === unpadded ? { encoding, bytes: new Uint8Array(bytes) } : undefined
}

/** Percent-encoding (RFC 3986); what is not well-formed stays as it is. */
export function decodeUrlEncoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** Undefined for bytes that are not text: not UTF-8, or with NUL bytes. */
export function utf8Text(bytes: Uint8Array): string | undefined {
  if (bytes.includes(0)) return undefined
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return undefined
  }
}
