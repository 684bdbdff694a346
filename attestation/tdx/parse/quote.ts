/**
 * ECDSA quotes of Intel's quoting enclaves: versions 3 (SGX), 4 and 5 (SGX or TDX), bytes to values (Intel TDX DCAP quoting
 * library API, appendix A; SGX ECDSA quote library reference, appendix A.4). Nothing is verified here.
 *
 * Little-endian, except keys and signatures, which are two big-endian numbers of 32 bytes each.
 */
import { ByteReader } from '#protocol/byte-reader'
import { toHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { ENCLAVE_REPORT_BYTES, type EnclaveReport, readEnclaveReport } from './enclave-report.ts'
import { readTdReport, TD_REPORT_10_BYTES, TD_REPORT_15_BYTES, type TdReport } from './td-report.ts'

export type QuoteErrorCode = 'ERR_QUOTE' | 'ERR_QUOTE_UNSUPPORTED'

/** Every way in which bytes are not a quote that is read here, truncation included. */
export class QuoteError extends MalformedError {}

/** Padding included: guests hand out fixed buffers. */
export const MAX_QUOTE_BYTES: number = 128 * 1024

const TEE_SGX = 0
const TEE_TDX = 0x81
const KEY_ECDSA_P256 = 2
const BODY_SGX = 1
const BODY_TD_10 = 2
const BODY_TD_15 = 3
const QE_REPORT_CERTIFICATION = 6

export type QuoteBody =
  | { readonly tee: 'sgx'; readonly report: EnclaveReport }
  | { readonly tee: 'tdx'; readonly report: TdReport }

/** How the quote names or carries the PCK certificate: types 1 to 3 name it, 4 and 5 carry it, 7 is a platform manifest. */
export interface CertificationData {
  readonly type: 1 | 2 | 3 | 4 | 5 | 7
  readonly data: Uint8Array
}

export interface Quote {
  readonly version: 3 | 4 | 5
  /** 16 bytes: who made the quoting enclave. */
  readonly qeVendorId: Uint8Array
  /** 20 bytes; the first 16 identify the quoting enclave's installation. */
  readonly userData: Uint8Array
  readonly body: QuoteBody
  /** Header and body (with the body's type and size in version 5): what `signature` is over. */
  readonly signed: Uint8Array
  /** R ‖ S. */
  readonly signature: Uint8Array
  /** X ‖ Y of the attestation key. */
  readonly attestationKey: Uint8Array
  readonly qeReport: EnclaveReport
  readonly qeReportBytes: Uint8Array
  /** R ‖ S, by the PCK key over `qeReportBytes`. */
  readonly qeReportSignature: Uint8Array
  readonly qeAuthData: Uint8Array
  readonly certification: CertificationData
  /** Zero bytes after the quote. */
  readonly padding: number
}

/** Throws `QuoteError`. */
export function parseQuote(bytes: Uint8Array): Quote {
  if (bytes.length > MAX_QUOTE_BYTES) throw malformed(`${bytes.length} bytes, limit ${MAX_QUOTE_BYTES}`)
  try {
    return readQuote(bytes)
  } catch (error) {
    if (error instanceof QuoteError || !(error instanceof MalformedError)) throw error
    throw new QuoteError('ERR_QUOTE', error.message, { cause: error })
  }
}

function readQuote(bytes: Uint8Array): Quote {
  const reader = new ByteReader(bytes, 'quote')
  const version = reader.u16le()
  if (version !== 3 && version !== 4 && version !== 5) throw unsupported(`version ${version}; 3, 4 and 5 are read`)
  const keyType = reader.u16le()
  if (keyType !== KEY_ECDSA_P256) throw unsupported(`attestation key of type ${keyType}; 2 (ECDSA P-256) is read`)
  const tee = teeName(reader.u32le())
  if (version === 3 && tee !== 'sgx') throw unsupported('version 3 with a TEE other than SGX')
  reader.skip(4) // SVNs of QE and PCE in version 3, reserved since; the signed reports and certificates tell them
  const qeVendorId = reader.bytes(16)
  const userData = reader.bytes(20)
  const body = readBody(reader, version, tee)
  const signed = bytes.slice(0, reader.offset)
  const signatureData = new ByteReader(reader.bytes(reader.u32le()), 'quote signature data')
  const padding = reader.remaining
  if (reader.bytes(padding).some((byte) => byte !== 0)) {
    throw malformed(`${padding} bytes after the signature data that are not all zero`)
  }
  const signature = signatureData.bytes(64)
  const attestationKey = signatureData.bytes(64)
  const endorsement = readEndorsement(version === 3 ? signatureData : qeReportCertification(signatureData))
  return { version, qeVendorId, userData, body, signed, signature, attestationKey, ...endorsement, padding }
}

function teeName(type: number): 'sgx' | 'tdx' {
  if (type === TEE_TDX) return 'tdx'
  if (type === TEE_SGX) return 'sgx'
  throw unsupported(`TEE type 0x${type.toString(16)}; 0 (SGX) and 0x81 (TDX) are read`)
}

function readBody(reader: ByteReader, version: 3 | 4 | 5, tee: 'sgx' | 'tdx'): QuoteBody {
  const type = version === 5 ? readBodyType(reader) : tee === 'sgx' ? BODY_SGX : BODY_TD_10
  if ((type === BODY_SGX) !== (tee === 'sgx')) throw malformed(`body of type ${type} in a quote of ${tee}`)
  if (type === BODY_SGX) return { tee: 'sgx', report: readEnclaveReport(reader) }
  return { tee: 'tdx', report: readTdReport(reader, type === BODY_TD_15 ? '1.5' : '1.0') }
}

const BODY_BYTES: Readonly<Record<number, number>> = {
  [BODY_SGX]: ENCLAVE_REPORT_BYTES,
  [BODY_TD_10]: TD_REPORT_10_BYTES,
  [BODY_TD_15]: TD_REPORT_15_BYTES,
}

function readBodyType(reader: ByteReader): number {
  const type = reader.u16le()
  const size = reader.u32le()
  const wanted = BODY_BYTES[type]
  if (wanted === undefined) throw unsupported(`body of type ${type}; 1, 2 and 3 are read`)
  if (size !== wanted) throw malformed(`body of type ${type} with ${size} bytes, ${wanted} are needed`)
  return type
}

/** From version 4 on, everything about the quoting enclave is one certification datum of type 6. */
function qeReportCertification(signatureData: ByteReader): ByteReader {
  const type = signatureData.u16le()
  if (type !== QE_REPORT_CERTIFICATION) throw unsupported(`certification data of type ${type}; 6 is needed here`)
  const content = new ByteReader(signatureData.bytes(signatureData.u32le()), 'QE report certification data')
  signatureData.end()
  return content
}

type Endorsement = Pick<Quote, 'qeReport' | 'qeReportBytes' | 'qeReportSignature' | 'qeAuthData' | 'certification'>

function readEndorsement(reader: ByteReader): Endorsement {
  const qeReportBytes = reader.bytes(ENCLAVE_REPORT_BYTES)
  const qeReportSignature = reader.bytes(64)
  const qeAuthData = reader.bytes(reader.u16le())
  const type = reader.u16le()
  if (type !== 1 && type !== 2 && type !== 3 && type !== 4 && type !== 5 && type !== 7) {
    throw unsupported(`certification data of type ${type}; 1 to 5 and 7 are read here`)
  }
  const data = reader.bytes(reader.u32le())
  reader.end()
  const qeReport = readEnclaveReport(new ByteReader(qeReportBytes, 'QE report'))
  return { qeReport, qeReportBytes, qeReportSignature, qeAuthData, certification: { type, data } }
}

/** Of Intel's quoting enclaves: 939a7233-f79c-4ca9-940a-0db3957f0607. */
const INTEL_QE_VENDOR_ID = '939a7233f79c4ca9940a0db3957f0607'

export function isIntelQuote(quote: Quote): boolean {
  return toHex(quote.qeVendorId) === INTEL_QE_VENDOR_ID
}

function malformed(why: string): QuoteError {
  return new QuoteError('ERR_QUOTE', `quote: ${why}`)
}

function unsupported(why: string): QuoteError {
  return new QuoteError('ERR_QUOTE_UNSUPPORTED', `quote: ${why}`)
}
