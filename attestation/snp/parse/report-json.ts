/**
 * Attestation reports as JSON: what CoCo's attesters send, which is the report's structure as one version or another of a
 * library names its fields. Every version can be turned back into the 1184 bytes that were signed; if a field was lost on
 * the way, the signature does not hold.
 */
import { fromBase64, fromHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { REPORT_BYTES, SCALAR_BYTES } from './report.ts'

/** Byte strings: place, length, name. */
const BYTE_FIELDS: readonly (readonly [offset: number, length: number, name: string])[] = [
  [0x010, 16, 'family_id'],
  [0x020, 16, 'image_id'],
  [0x050, 64, 'report_data'],
  [0x090, 48, 'measurement'],
  [0x0c0, 32, 'host_data'],
  [0x0e0, 48, 'id_key_digest'],
  [0x110, 48, 'author_key_digest'],
  [0x140, 32, 'report_id'],
  [0x160, 32, 'report_id_ma'],
  [0x1a0, 64, 'chip_id'],
]

/** Ranges that some versions keep without knowing what they mean. They come first: named fields are written over them. */
const OPAQUE_FIELDS: readonly (readonly [offset: number, length: number, name: string])[] = [
  [0x188, 24, '_reserved_1'],
  [0x1f8, 168, '_reserved_4'],
]

const TCB_FIELDS: readonly (readonly [offset: number, name: string])[] = [
  [0x038, 'current_tcb'],
  [0x180, 'reported_tcb'],
  [0x1e0, 'committed_tcb'],
  [0x1f0, 'launch_tcb'],
]

const SIGNATURE_OFFSET = 0x2a0
const U8 = 0xffn
const U32 = 0xffff_ffffn
const U64 = 2n ** 64n - 1n

type Members = Readonly<Record<string, unknown>>

/**
 * The 1184 bytes. `value` is the report's object; integers that a number does not hold exactly must be bigints or text.
 * Throws `MalformedError` ERR_SNP_EVIDENCE.
 */
export function reportBytesOfJson(value: unknown): Uint8Array {
  const report = membersOf(value, 'attestation_report')
  const bytes = new Uint8Array(REPORT_BYTES)
  const view = new DataView(bytes.buffer)
  for (const [offset, length, name] of OPAQUE_FIELDS) {
    if (isPresent(report[name])) bytes.set(bytesOfJson(report[name], name, length), offset)
  }
  view.setUint32(0x000, Number(integer(report, 'version', U32)), true)
  view.setUint32(0x004, Number(integer(report, 'guest_svn', U32)), true)
  view.setBigUint64(0x008, integer(report, 'policy', U64), true)
  view.setUint32(0x030, Number(integer(report, 'vmpl', U32)), true)
  view.setUint32(0x034, Number(integer(report, 'sig_algo', U32)), true)
  view.setBigUint64(0x040, integer(report, 'plat_info', U64), true)
  view.setUint32(0x048, keyInfo(report), true)
  for (const [offset, length, name] of BYTE_FIELDS) bytes.set(bytesOfJson(report[name], name, length), offset)
  for (const [offset, name] of TCB_FIELDS) bytes.set(tcbBytes(report[name], name), offset)
  for (const [index, name] of ['cpuid_fam_id', 'cpuid_mod_id', 'cpuid_step'].entries()) {
    if (isPresent(report[name])) bytes[0x188 + index] = Number(integer(report, name, U8))
  }
  bytes.set(versionBytes(report, 'current'), 0x1e8)
  bytes.set(versionBytes(report, 'committed'), 0x1ec)
  for (const [index, name] of ['launch_mit_vector', 'current_mit_vector'].entries()) {
    if (isPresent(report[name])) view.setBigUint64(0x1f8 + 8 * index, integer(report, name, U64), true)
  }
  writeSignature(bytes, membersOf(report.signature, 'signature'))
  return bytes
}

/** Bytes as JSON has them: numbers, base64 or hexadecimal. Throws `MalformedError`. @param length undefined: up to 64 KiB */
export function bytesOfJson(value: unknown, name: string, length?: number): Uint8Array {
  const bytes = Array.isArray(value)
    ? numbers(value, name)
    : typeof value === 'string'
      ? text(value, name, length)
      : undefined
  if (bytes === undefined) throw malformed(`${name}: bytes are needed, as numbers or text`)
  if (length !== undefined && bytes.length !== length) throw malformed(`${name}: ${bytes.length} bytes, not ${length}`)
  return bytes
}

const MAX_BYTES = 64 * 1024

function numbers(values: readonly unknown[], name: string): Uint8Array {
  if (values.length > MAX_BYTES) throw malformed(`${name}: ${values.length} bytes`)
  return Uint8Array.from(values, (value) => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 255) return value
    throw malformed(`${name}: ${typeof value === 'number' ? value : typeof value} is not a byte`)
  })
}

/** Where the length is known it tells the two encodings apart. */
function text(value: string, name: string, length: number | undefined): Uint8Array {
  if (value.length > 2 * MAX_BYTES) throw malformed(`${name}: ${value.length} characters`)
  if (length !== undefined && value.length === 2 * length) return fromHex(value, name)
  return fromBase64(value, name)
}

export function membersOf(value: unknown, name: string): Members {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw malformed(`${name}: an object is needed`)
  return value as Members
}

function integer(members: Members, name: string, max: bigint): bigint {
  const value = members[name]
  const number =
    typeof value === 'bigint'
      ? value
      : typeof value === 'number' && Number.isSafeInteger(value)
        ? BigInt(value)
        : typeof value === 'string' && /^(?:\d{1,20}|0x[0-9a-fA-F]{1,16})$/.test(value)
          ? BigInt(value)
          : undefined
  if (number === undefined || number < 0n || number > max) {
    throw malformed(`${name}: a whole number from 0 to ${max} is needed`)
  }
  return number
}

/** The word at 0x48, whole; early versions knew only its lowest bit. */
function keyInfo(report: Members): number {
  if (isPresent(report.key_info)) return Number(integer(report, 'key_info', U32))
  const name = isPresent(report._author_key_en) ? '_author_key_en' : 'author_key_en'
  const value = report[name]
  return typeof value === 'boolean' ? Number(value) : Number(integer(report, name, U32))
}

/** With a number as `fmc` the layout is Turin's; otherwise the older one, in which no byte is lost either. */
function tcbBytes(value: unknown, name: string): Uint8Array {
  const tcb = membersOf(value, name)
  const level = (component: string): number => Number(integer(tcb, component, U8))
  if (isPresent(tcb.fmc)) {
    return new Uint8Array([level('fmc'), level('bootloader'), level('tee'), level('snp'), 0, 0, 0, level('microcode')])
  }
  const reserved = isPresent(tcb._reserved) ? bytesOfJson(tcb._reserved, `${name}._reserved`, 4) : new Uint8Array(4)
  return new Uint8Array([level('bootloader'), level('tee'), ...reserved, level('snp'), level('microcode')])
}

/** Build, minor, major: as an object of its own, or as three fields. */
function versionBytes(report: Members, which: 'current' | 'committed'): Uint8Array {
  const nested = isPresent(report[which])
  const members = nested ? membersOf(report[which], which) : report
  const part = (name: string): number => Number(integer(members, nested ? name : `${which}_${name}`, U8))
  return new Uint8Array([part('build'), part('minor'), part('major')])
}

function writeSignature(bytes: Uint8Array, signature: Members): void {
  bytes.set(bytesOfJson(signature.r, 'signature.r', SCALAR_BYTES), SIGNATURE_OFFSET)
  bytes.set(bytesOfJson(signature.s, 'signature.s', SCALAR_BYTES), SIGNATURE_OFFSET + SCALAR_BYTES)
  const rest = SIGNATURE_OFFSET + 2 * SCALAR_BYTES
  if (isPresent(signature._reserved)) {
    bytes.set(bytesOfJson(signature._reserved, 'signature._reserved', REPORT_BYTES - rest), rest)
  }
}

function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_SNP_EVIDENCE', `SNP evidence: ${why}`)
}
