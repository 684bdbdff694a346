/**
 * trusted_root.json (sigstore TrustedRoot, media types 0.1 and 0.2): the authorities, logs and time stampers that the
 * policy pins. Nothing is fetched: what is not in the document is not trusted.
 */
import { TrustedRoot } from '@sigstore/protobuf-specs'
import { errorText, MalformedError } from '#protocol/errors'
import { asArray, asObject } from '../json/fields.ts'
import { parseStrictJson } from '../json/strict-json.ts'
import { requireProtobufJson } from './protobuf-json.ts'

const MEDIA_TYPE = /^application\/vnd\.dev\.sigstore\.trustedroot(?:\+json;version=0\.[12]|\.v0\.[12]\+json)$/
const MAX_BYTES = 1024 * 1024
const MAX_AUTHORITIES = 64

/** Throws `MalformedError` ERR_IMAGE_TRUSTED_ROOT. @param place of the policy, for messages */
export function parseTrustedRoot(bytes: Uint8Array, place: string): TrustedRoot {
  try {
    if (bytes.length > MAX_BYTES) throw malformed(place, `longer than ${MAX_BYTES} bytes`)
    const document = asObject(parseStrictJson(bytes, place), place)
    if (typeof document.mediaType !== 'string' || !MEDIA_TYPE.test(document.mediaType)) {
      throw malformed(place, 'its mediaType is not that of a trusted root')
    }
    for (const name of ['tlogs', 'certificateAuthorities', 'ctlogs', 'timestampAuthorities']) {
      if (document[name] !== undefined) asArray(document[name], `${place}: ${name}`, MAX_AUTHORITIES)
    }
    requireProtobufJson(document, place)
    const root = TrustedRoot.fromJSON(document)
    requireComplete(root, place)
    return root
  } catch (cause) {
    if (cause instanceof MalformedError && cause.code === 'ERR_IMAGE_TRUSTED_ROOT') throw cause
    throw malformed(place, errorText(cause), cause)
  }
}

/** A key without a beginning would be good for every time, which nobody who pins it can have meant. */
function requireComplete(root: TrustedRoot, place: string): void {
  for (const log of [...root.tlogs, ...root.ctlogs]) {
    if (log.publicKey?.rawBytes === undefined || log.logId === undefined)
      throw malformed(place, 'a log lacks its key or id')
    if (log.publicKey.validFor?.start === undefined)
      throw malformed(place, `log ${log.baseUrl} lacks the start of its validity`)
  }
  for (const { certChain, uri } of [...root.certificateAuthorities, ...root.timestampAuthorities]) {
    if (certChain === undefined || certChain.certificates.length === 0) {
      throw malformed(place, `authority ${uri} has no certificates`)
    }
  }
}

function malformed(place: string, why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_IMAGE_TRUSTED_ROOT', `${place}: not a trusted root: ${why}`, {
    hint: 'Use the trusted_root.json that the signing service publishes (`cosign trusted-root create` makes one).',
    ...(cause === undefined ? {} : { cause }),
  })
}
