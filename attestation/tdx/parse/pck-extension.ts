/**
 * The SGX extension of PCK certificates (Intel SGX PCK Certificate and CRL Profile 1.5, section 1.3.5): which platform the
 * key belongs to, and at which security versions.
 */

import {
  DER_TAG,
  type DerValue,
  readBoolean,
  readDer,
  readObjectId,
  readSingleDer,
  readSmallInteger,
} from '#protocol/der'
import { concatBytes, equalBytes, toHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'

export const SGX_EXTENSION_OID = '1.2.840.113741.1.13.1'

/** The same name as DER has it, without tag and length. */
const PREFIX: Uint8Array = Uint8Array.of(0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01)
const TCB_PREFIX: Uint8Array = concatBytes(PREFIX, Uint8Array.of(2))
const CONFIGURATION_PREFIX: Uint8Array = concatBytes(PREFIX, Uint8Array.of(7))

export interface PckExtension {
  /** Hex, as all byte strings here. */
  readonly ppid: string
  /** 16 of them, 0 to 255. */
  readonly sgxComponents: readonly number[]
  readonly pceSvn: number
  readonly cpuSvn: string
  readonly pceId: string
  readonly fmspc: string
  readonly sgxType: 'standard' | 'scalable' | 'scalable-with-integrity'
  /** What the platform CA adds for machines of several sockets. */
  readonly platformInstanceId: string | undefined
  readonly configuration: PlatformConfiguration | undefined
}

/** Undefined: Intel does not know. */
export interface PlatformConfiguration {
  readonly dynamicPlatform: boolean | undefined
  readonly cachedKeys: boolean | undefined
  readonly smtEnabled: boolean | undefined
}

const COMPONENTS = 16
const SGX_TYPES = ['standard', 'scalable', 'scalable-with-integrity'] as const

/** @param extension content of the extension. Throws `MalformedError` ERR_PCK_EXTENSION or ERR_DER. */
export function parsePckExtension(extension: Uint8Array): PckExtension {
  const fields = readPairs(readSingleDer(extension, DER_TAG.sequence), PREFIX)
  const tcb = readPairs(needed(fields, 2), TCB_PREFIX)
  const instance = fields.get(6)
  const configuration = fields.get(7)
  const sgxType = SGX_TYPES[readEnumerated(needed(fields, 5))]
  if (sgxType === undefined) throw malformed('unknown SGX type')
  return {
    ppid: readBytes(needed(fields, 1), 16),
    sgxComponents: Array.from({ length: COMPONENTS }, (_, index) => readSmallInteger(needed(tcb, index + 1), 0, 255)),
    pceSvn: readSmallInteger(needed(tcb, COMPONENTS + 1), 0, 65535),
    cpuSvn: readBytes(needed(tcb, COMPONENTS + 2), 16),
    pceId: readBytes(needed(fields, 3), 2),
    fmspc: readBytes(needed(fields, 4), 6),
    sgxType,
    platformInstanceId: instance === undefined ? undefined : readBytes(instance, 16),
    configuration: configuration === undefined ? undefined : readConfiguration(configuration),
  }
}

function readConfiguration(value: DerValue): PlatformConfiguration {
  const flags = readPairs(value, CONFIGURATION_PREFIX)
  const flag = (number: number): boolean | undefined => {
    const found = flags.get(number)
    return found === undefined ? undefined : readBoolean(found)
  }
  return { dynamicPlatform: flag(1), cachedKeys: flag(2), smtEnabled: flag(3) }
}

/** A sequence of (name, value) whose names are `prefix` and one number. Numbers that are not known here are left to Intel. */
function readPairs(sequence: DerValue, prefix: Uint8Array): Map<number, DerValue> {
  if (sequence.tag !== DER_TAG.sequence) throw malformed('a sequence of values is needed')
  const values = new Map<number, DerValue>()
  for (const pair of readDer(sequence.content)) {
    const [name, value, ...more] = pair.tag === DER_TAG.sequence ? readDer(pair.content) : []
    if (name === undefined || value === undefined || more.length > 0) throw malformed('a name and a value are needed')
    const { content } = name
    const number = content[prefix.length] ?? 0x80
    const known = name.tag === DER_TAG.objectId && equalBytes(content.subarray(0, prefix.length), prefix)
    if (!known || content.length !== prefix.length + 1 || number >= 0x80) {
      throw malformed(`value ${readObjectId(name).slice(0, 64)} where it does not belong`)
    }
    if (values.has(number)) throw malformed(`value ${readObjectId(name)} occurs twice`)
    values.set(number, value)
  }
  return values
}

function needed(values: ReadonlyMap<number, DerValue>, number: number): DerValue {
  const value = values.get(number)
  if (value === undefined) throw malformed(`value ${number} is missing`)
  return value
}

function readBytes(value: DerValue, length: number): string {
  if (value.tag !== DER_TAG.octetString || value.content.length !== length) {
    throw malformed(`a string of ${length} bytes is needed`)
  }
  return toHex(value.content)
}

function readEnumerated(value: DerValue): number {
  const [byte, ...more] = value.content
  if (value.tag !== DER_TAG.enumerated || byte === undefined || more.length > 0) throw malformed('unknown SGX type')
  return byte
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_PCK_EXTENSION', `SGX extension: ${why}`)
}
