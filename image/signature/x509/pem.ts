/** PEM (RFC 7468): text to DER, strict. */
import { fromBase64 } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'

const BLOCK = /-----BEGIN ([A-Z0-9 ]{1,60})-----[ \t]*\r?\n([A-Za-z0-9+/=\s]*?)-----END \1-----/y
const MAX_BLOCKS = 64

export interface PemBlock {
  readonly label: string
  readonly der: Uint8Array
}

/**
 * The blocks of a text that holds blocks and white space alone. Throws `MalformedError` ERR_PEM.
 *
 * @param what for messages
 */
export function parsePem(source: string | Uint8Array, what: string): readonly PemBlock[] {
  const text = (typeof source === 'string' ? source : new TextDecoder().decode(source)).trim()
  const blocks: PemBlock[] = []
  for (let at = 0; at < text.length; ) {
    BLOCK.lastIndex = at
    const match = BLOCK.exec(text)
    const [whole, label = '', body = ''] = match ?? []
    if (whole === undefined) throw malformed(what, 'not PEM')
    if (blocks.length === MAX_BLOCKS) throw malformed(what, `more than ${MAX_BLOCKS} blocks`)
    blocks.push({ label, der: decode(body.replaceAll(/\s/g, ''), what) })
    at += whole.length
    while (/\s/.test(text.charAt(at))) at++
  }
  if (blocks.length === 0) throw malformed(what, 'holds no PEM block')
  return blocks
}

/** DER of every block, all of which must be certificates. */
export function parsePemCertificates(source: string | Uint8Array, what: string): readonly Uint8Array[] {
  return parsePem(source, what).map(({ label, der }) => {
    if (label !== 'CERTIFICATE') throw malformed(what, `holds a ${label}, where certificates are wanted`)
    return der
  })
}

function decode(body: string, what: string): Uint8Array {
  try {
    return fromBase64(body, what)
  } catch (cause) {
    throw malformed(what, 'not base64', cause)
  }
}

function malformed(what: string, why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_PEM', `${what}: ${why}`, cause === undefined ? {} : { cause })
}
