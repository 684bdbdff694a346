/**
 * What the certificate of a TPM's key says of the TPM: maker, model and version, in the directory name of the alternative names
 * (TCG EK Credential Profile 2.6, section 3.2.9).
 */

import { type DerValue, readDer, readObjectId, readSingleDer } from '#protocol/der'
import { MalformedError } from '#protocol/errors'

export interface TpmIdentity {
  /** "id:" and the vendor's four bytes in hexadecimal. */
  readonly manufacturer: string | undefined
  readonly model: string | undefined
  readonly version: string | undefined
}

const MANUFACTURER = '2.23.133.2.1'
const MODEL = '2.23.133.2.2'
const VERSION = '2.23.133.2.3'
const SEQUENCE = 0x30
/** [4] of GeneralName: directoryName, which holds a Name. */
const DIRECTORY_NAME = 0xa4
/** Models of TPMs that are programs. */
const SOFTWARE = /swtpm|libtpms|simulator|software/i

/** @param alternativeNames content of the extension subjectAltName. Throws `MalformedError` ERR_DER, ERR_TPM_IDENTITY. */
export function parseTpmIdentity(alternativeNames: Uint8Array): TpmIdentity {
  const names = readDer(readSingleDer(alternativeNames, SEQUENCE).content)
  const attributes = new Map<string, string>()
  for (const name of names.filter(({ tag }) => tag === DIRECTORY_NAME)) {
    for (const set of readDer(readSingleDer(name.content, SEQUENCE).content)) {
      for (const attribute of readDer(set.content)) readAttribute(attribute, attributes)
    }
  }
  return {
    manufacturer: attributes.get(MANUFACTURER),
    model: attributes.get(MODEL),
    version: attributes.get(VERSION),
  }
}

/** Whether such a TPM is a program, whoever runs it. */
export function isSoftwareTpm({ model }: TpmIdentity): boolean {
  return model !== undefined && SOFTWARE.test(model)
}

function readAttribute(attribute: DerValue, attributes: Map<string, string>): void {
  const [type, value, ...more] = readDer(attribute.content)
  if (type === undefined || value === undefined || more.length > 0) {
    throw new MalformedError('ERR_TPM_IDENTITY', 'subjectAltName: an attribute has a type and a value')
  }
  attributes.set(readObjectId(type), new TextDecoder().decode(value.content))
}
