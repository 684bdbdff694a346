/**
 * Signatures as files, the form that skopeo keeps in `dir:` folders and lookaside storage: an OpenPGP message as it is,
 * or zero, the name of a format, a line end and its content.
 */
import { fromBase64 } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { asObject, asString, optionalStringMap } from '../json/fields.ts'
import { parseStrictJson } from '../json/strict-json.ts'
import type { FoundSignature } from './found.ts'
import { SIMPLE_SIGNING_TYPE } from './payload.ts'

const SIGSTORE_MARK = new TextEncoder().encode('\0sigstore-json\n')
/** First octets of the OpenPGP packets that may start a signed message: compressed, one-pass signature, signature. */
const OPENPGP_STARTS: ReadonlySet<number> = new Set([
  0xa0, 0xa1, 0xa2, 0xa3, 0xc8, 0x90, 0x91, 0x92, 0x93, 0xc4, 0x88, 0x89, 0x8a, 0x8b, 0xc2,
])

/**
 * Undefined for a sigstore signature of a kind that no requirement judges. Throws `MalformedError`
 * ERR_IMAGE_SIGNATURE_FORMAT, ERR_JSON, ERR_IMAGE_DOCUMENT or ERR_BASE64.
 *
 * @param source for messages
 */
export function parseSignatureBlob(bytes: Uint8Array, source: string): FoundSignature | undefined {
  if (OPENPGP_STARTS.has(bytes[0] ?? 0)) return { kind: 'openpgp', message: bytes, source }
  if (!SIGSTORE_MARK.every((byte, index) => bytes[index] === byte)) {
    throw new MalformedError('ERR_IMAGE_SIGNATURE_FORMAT', `${source}: a signature of unknown format`)
  }
  const stored = asObject(parseStrictJson(bytes.subarray(SIGSTORE_MARK.length), source), source)
  if (asString(stored.mimeType, `${source}: mimeType`) !== SIMPLE_SIGNING_TYPE) return undefined
  return {
    kind: 'cosign',
    payload: fromBase64(asString(stored.payload, `${source}: payload`), `${source}: payload`),
    annotations: optionalStringMap(stored.annotations, `${source}: annotations`),
    source,
  }
}
