/**
 * The report of Azure's paravisor (HCL, now OpenHCL), as it lies in the TPM's NV index 0x01400001: the hardware's report, and
 * the runtime claims whose hash that report carries. Little-endian:
 *
 * | Offset | Field |
 * | --- | --- |
 * | 0 | header: "HCLA", version u32, size of all u32, request type u32, status u32, 12 bytes of zeros |
 * | 32 | hardware report, 1184 bytes: SNP, or TDREPORT (1024) and zeros |
 * | 1216 | size of what follows u32, version u32, report type u32 (2 SNP, 4 TDX), hash type u32 (1–3), size of claims u32 |
 * | 1236 | runtime claims, JSON |
 *
 * NV indices are larger than reports: zeros follow.
 */
import { ByteReader } from '#protocol/byte-reader'
import type { JsonObject } from '#protocol/canonical-json'
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { MalformedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import { type QuoteKey, quoteKeyOfJwk } from '../../tpm/parse/quote-key.ts'

export interface HclReport {
  readonly kind: 'snp' | 'tdx'
  /** The SNP attestation report (1184 bytes) or the TDREPORT (1024). */
  readonly hardwareReport: Uint8Array
  readonly hash: HashAlgorithm
  /** The exact bytes that are hashed. */
  readonly runtimeData: Uint8Array
  readonly claims: RuntimeClaims
}

export interface RuntimeClaims {
  /** HCLAkPub: the virtual TPM's attestation key. */
  readonly attestationKey: QuoteKey
  /** As the paravisor wrote it: secure-boot, tpm-enabled, vmUniqueId… */
  readonly vmConfiguration: JsonObject
  /** What the guest asked for when the report was made, 64 bytes. */
  readonly userData: Uint8Array | undefined
}

const CODE = 'ERR_HCL_REPORT'
const SIGNATURE = 'HCLA'
const HEADER_BYTES = 32
const HARDWARE_BYTES = 1184
const TD_REPORT_BYTES = 1024
const REQUEST_HEADER_BYTES = 20
const MAX_BYTES = 64 * 1024
const MAX_CLAIMS = 32 * 1024
const MAX_KEYS = 16
const USER_DATA_DIGITS = 128
const AK_KEY_ID = 'HCLAkPub'
const KINDS: Readonly<Record<number, 'snp' | 'tdx'>> = { 2: 'snp', 4: 'tdx' }
const HASHES: Readonly<Record<number, HashAlgorithm>> = { 1: 'sha256', 2: 'sha384', 3: 'sha512' }

/** Whether the bytes begin as such a report does; nothing is read. */
export function isHclReport(bytes: Uint8Array): boolean {
  return String.fromCharCode(...bytes.subarray(0, SIGNATURE.length)) === SIGNATURE
}

/** Throws `MalformedError` ERR_HCL_REPORT, ERR_TRUNCATED, ERR_TPM_PUBLIC. */
export function parseHclReport(bytes: Uint8Array): HclReport {
  if (bytes.length > MAX_BYTES) throw malformed(`${bytes.length} bytes, at most ${MAX_BYTES} are read`)
  if (!isHclReport(bytes)) throw malformed('it does not begin with "HCLA"')
  const reader = new ByteReader(bytes, 'HCL report')
  reader.skip(SIGNATURE.length + 4) // version
  const size = reader.u32le()
  reader.skip(4) // request type
  const status = reader.u32le()
  if (status !== 0) throw malformed(`status ${status}: the paravisor did not make a report`)
  zeros(reader.bytes(HEADER_BYTES - 20), 'the header')
  const hardware = reader.bytes(HARDWARE_BYTES)
  const request = readRequest(reader)
  const length = HEADER_BYTES + HARDWARE_BYTES + REQUEST_HEADER_BYTES + request.claimBytes
  if (size !== length || request.size !== REQUEST_HEADER_BYTES + request.claimBytes) {
    throw malformed(`sizes ${size} and ${request.size} do not fit claims of ${request.claimBytes} bytes`)
  }
  const runtimeData = reader.bytes(request.claimBytes)
  zeros(reader.bytes(reader.remaining), 'the rest')
  const { kind } = request
  if (kind === 'tdx') zeros(hardware.subarray(TD_REPORT_BYTES), 'the space behind TDREPORT')
  return {
    kind,
    hash: request.hash,
    hardwareReport: kind === 'tdx' ? hardware.slice(0, TD_REPORT_BYTES) : hardware,
    runtimeData,
    claims: readClaims(runtimeData),
  }
}

interface RequestHeader {
  readonly size: number
  readonly kind: 'snp' | 'tdx'
  readonly hash: HashAlgorithm
  readonly claimBytes: number
}

function readRequest(reader: ByteReader): RequestHeader {
  const size = reader.u32le()
  reader.skip(4) // version
  const type = reader.u32le()
  const hashType = reader.u32le()
  const kind = KINDS[type]
  const hash = HASHES[hashType]
  if (kind === undefined) throw malformed(`hardware report of type ${type}, neither SNP (2) nor TDX (4)`)
  if (hash === undefined) throw malformed(`runtime claims hashed by algorithm ${hashType}, 1 to 3 are known`)
  const claimBytes = reader.u32le()
  if (claimBytes > MAX_CLAIMS) throw malformed(`runtime claims of ${claimBytes} bytes`)
  return { size, kind, hash, claimBytes }
}

function readClaims(runtimeData: Uint8Array): RuntimeClaims {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(runtimeData)
  } catch (cause) {
    throw new MalformedError(CODE, 'HCL report: the runtime claims are not UTF-8', { cause })
  }
  const fields = JsonFields.parse(text, 'runtime claims', { code: CODE, maxChars: MAX_CLAIMS })
  const [ak, ...others] = fields
    .objects('keys', MAX_KEYS)
    .filter((key) => key.has('kid') && key.string('kid', 256) === AK_KEY_ID)
  if (ak === undefined || others.length > 0) throw fields.error('keys', `${AK_KEY_ID} is needed once`)
  const configuration = fields.has('vm-configuration') ? fields.json('vm-configuration') : {}
  if (typeof configuration !== 'object' || configuration === null || Array.isArray(configuration)) {
    throw fields.error('vm-configuration', 'an object is needed')
  }
  return {
    attestationKey: readKey(ak),
    vmConfiguration: configuration as JsonObject,
    userData: fields.has('user-data') ? readUserData(fields) : undefined,
  }
}

function readKey(fields: JsonFields): QuoteKey {
  if (fields.oneOf('kty', ['RSA', 'EC']) === 'RSA') {
    return quoteKeyOfJwk({ kty: 'RSA', n: fields.string('n', 1024), e: fields.string('e', 16) })
  }
  return quoteKeyOfJwk({
    kty: 'EC',
    crv: fields.oneOf('crv', ['P-256', 'P-384', 'P-521']),
    x: fields.string('x', 128),
    y: fields.string('y', 128),
  })
}

function readUserData(fields: JsonFields): Uint8Array {
  const digits = fields.string('user-data', USER_DATA_DIGITS)
  if (digits.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(digits)) throw fields.error('user-data', 'not hexadecimal')
  return new Uint8Array(Buffer.from(digits, 'hex'))
}

function zeros(bytes: Uint8Array, where: string): void {
  if (bytes.some((byte) => byte !== 0)) throw malformed(`${where} is not zero`)
}

function malformed(why: string): MalformedError {
  return new MalformedError(CODE, `HCL report: ${why}`)
}
