/** Textual encodings (RFC 7468): every block of a file, so that none is overlooked. */
import { fromBase64 } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'

export interface PemBlock {
  /** "CERTIFICATE", "X509 CRL", … */
  readonly label: string
  readonly bytes: Uint8Array
}

const MAX_BLOCKS = 256
const BLOCK = /-----BEGIN ([A-Z0-9 ]{1,40})-----([A-Za-z0-9+/=\s]*)-----END ([A-Z0-9 ]{1,40})-----/g

/**
 * All blocks; text between them is ignored, as RFC 7468 section 2 has it.
 *
 * Throws `MalformedError` ERR_PEM when a block begins and does not end, holds something else than base64, or when there
 * are more than 256.
 */
export function parsePem(text: string): PemBlock[] {
  const blocks: PemBlock[] = []
  for (const [, label = '', body = '', end] of text.matchAll(BLOCK)) {
    if (label !== end) throw malformed(`a block of ${label} ends as one of ${end}`)
    if (blocks.push({ label, bytes: decode(body, label) }) > MAX_BLOCKS)
      throw malformed(`more than ${MAX_BLOCKS} blocks`)
  }
  if (blocks.length !== text.split('-----BEGIN ').length - 1) throw malformed('a block begins, but is not one')
  return blocks
}

/** One block, in lines of 64 characters. */
export function encodePem({ label, bytes }: PemBlock): string {
  const lines =
    Buffer.from(bytes)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}

function decode(body: string, label: string): Uint8Array {
  try {
    return fromBase64(body.replace(/\s+/g, ''), label)
  } catch (cause) {
    throw new MalformedError('ERR_PEM', `PEM: the block of ${label} is not base64`, { cause })
  }
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_PEM', `PEM: ${why}`)
}
