/** Identity of one of Intel's quoting enclaves, as the provisioning certification service publishes it (version 2 and 3). */
import { JsonFields } from '#protocol/json-fields'
import { MAX_DOCUMENT_CHARS } from './signed-document.ts'
import { type IsvSvnLevel, readDate, readHex, readIsvSvnLevels } from './tcb-info.ts'

const CODE = 'ERR_ENCLAVE_IDENTITY'

/** Hex, lower case; in the order in which the enclave's report has the bytes. */
export interface EnclaveIdentity {
  /** QE signs quotes of SGX, TD_QE those of TDX. */
  readonly id: string
  readonly version: number
  readonly issueDate: Date
  readonly nextUpdate: Date
  readonly evaluationDataNumber: number
  readonly miscSelect: string
  readonly miscSelectMask: string
  readonly attributes: string
  readonly attributesMask: string
  readonly mrSigner: string
  readonly isvProdId: number
  /** Highest first. */
  readonly levels: readonly IsvSvnLevel[]
}

/** @param text the signed object, without the answer around it. Throws `MalformedError` ERR_ENCLAVE_IDENTITY. */
export function parseEnclaveIdentity(text: string): EnclaveIdentity {
  const fields = JsonFields.parse(text, 'enclaveIdentity', { code: CODE, maxChars: MAX_DOCUMENT_CHARS })
  const levels = readIsvSvnLevels(fields)
  if (levels.length === 0) throw fields.error('tcbLevels', 'at least one level is needed')
  return {
    id: fields.string('id', 16),
    version: fields.integer('version', 2, 3),
    issueDate: readDate(fields, 'issueDate'),
    nextUpdate: readDate(fields, 'nextUpdate'),
    evaluationDataNumber: fields.integer('tcbEvaluationDataNumber', 0, 2 ** 31),
    miscSelect: readHex(fields, 'miscselect', 4),
    miscSelectMask: readHex(fields, 'miscselectMask', 4),
    attributes: readHex(fields, 'attributes', 16),
    attributesMask: readHex(fields, 'attributesMask', 16),
    mrSigner: readHex(fields, 'mrsigner', 32),
    isvProdId: fields.integer('isvprodid', 0, 65535),
    levels,
  }
}
