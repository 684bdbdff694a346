/**
 * The two protobuf messages around every ttrpc call, `ttrpc.Request` and `ttrpc.Response`, written and read by hand:
 * they are five and two fields, and hand-reading bounds each of them.
 */
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import { errorText, MalformedError } from '../errors.ts'
import { type Status, StatusCode } from './status.ts'

/** Metadata of a call. Keys are lower-case; a key may have several values. */
export type Metadata = ReadonlyMap<string, readonly string[]>

export interface RequestEnvelope {
  /** Fully qualified, no slash: "containerd.task.v2.Task". */
  readonly service: string
  readonly method: string
  readonly payload: Uint8Array
  /** Relative; 0 is none. */
  readonly timeoutNano: bigint
  readonly metadata: Metadata
}

export interface ResponseEnvelope {
  readonly status: Status
  /** Meaningless unless the status is OK. */
  readonly payload: Uint8Array
}

const MAX_NAME_CHARS = 256
const MAX_METADATA_ENTRIES = 64
const MAX_METADATA_CHARS = 8192
const OK: Status = { code: StatusCode.ok, message: '' }
const EMPTY = new Uint8Array(0)

export function encodeRequest(request: RequestEnvelope): Uint8Array {
  const writer = new BinaryWriter()
  if (request.service !== '') writer.tag(1, WireType.LengthDelimited).string(request.service)
  if (request.method !== '') writer.tag(2, WireType.LengthDelimited).string(request.method)
  if (request.payload.byteLength > 0) writer.tag(3, WireType.LengthDelimited).bytes(request.payload)
  if (request.timeoutNano !== 0n) writer.tag(4, WireType.Varint).int64(request.timeoutNano)
  for (const [key, values] of request.metadata) {
    for (const value of values) {
      writer.tag(5, WireType.LengthDelimited).fork()
      writer.tag(1, WireType.LengthDelimited).string(key.toLowerCase())
      writer.tag(2, WireType.LengthDelimited).string(value)
      writer.join()
    }
  }
  return writer.finish()
}

/** @throws MalformedError ERR_RPC_MALFORMED */
export function parseRequest(bytes: Uint8Array): RequestEnvelope {
  let service = ''
  let method = ''
  let payload: Uint8Array = EMPTY
  let timeoutNano = 0n
  const metadata = new Map<string, string[]>()
  let entries = 0
  readFields('Request', bytes, (field, wireType, reader) => {
    if (field === 1 && wireType === WireType.LengthDelimited) service = boundedString(reader, MAX_NAME_CHARS)
    else if (field === 2 && wireType === WireType.LengthDelimited) method = boundedString(reader, MAX_NAME_CHARS)
    else if (field === 3 && wireType === WireType.LengthDelimited) payload = reader.bytes()
    else if (field === 4 && wireType === WireType.Varint) timeoutNano = BigInt(reader.int64())
    else if (field === 5 && wireType === WireType.LengthDelimited) {
      entries += 1
      if (entries > MAX_METADATA_ENTRIES) throw new RangeError(`more than ${MAX_METADATA_ENTRIES} metadata entries`)
      const [key, value] = parseKeyValue(reader.bytes())
      const values = metadata.get(key)
      if (values === undefined) metadata.set(key, [value])
      else values.push(value)
    } else return false
    return true
  })
  return { service, method, payload, timeoutNano, metadata }
}

export function encodeResponse(response: ResponseEnvelope): Uint8Array {
  const writer = new BinaryWriter()
  if (response.status.code !== StatusCode.ok) {
    writer.tag(1, WireType.LengthDelimited).fork()
    writer.tag(1, WireType.Varint).int32(response.status.code)
    if (response.status.message !== '') writer.tag(2, WireType.LengthDelimited).string(response.status.message)
    writer.join()
  }
  if (response.payload.byteLength > 0) writer.tag(2, WireType.LengthDelimited).bytes(response.payload)
  return writer.finish()
}

/** @throws MalformedError ERR_RPC_MALFORMED */
export function parseResponse(bytes: Uint8Array): ResponseEnvelope {
  let status = OK
  let payload: Uint8Array = EMPTY
  readFields('Response', bytes, (field, wireType, reader) => {
    if (field === 1 && wireType === WireType.LengthDelimited) status = parseStatus(reader.bytes())
    else if (field === 2 && wireType === WireType.LengthDelimited) payload = reader.bytes()
    else return false
    return true
  })
  return { status, payload }
}

function parseStatus(bytes: Uint8Array): Status {
  let code = 0
  let message = ''
  readFields('Status', bytes, (field, wireType, reader) => {
    if (field === 1 && wireType === WireType.Varint) code = reader.int32()
    else if (field === 2 && wireType === WireType.LengthDelimited) message = boundedString(reader, MAX_METADATA_CHARS)
    else return false // details (3) are not used by this project
    return true
  })
  return { code, message }
}

function parseKeyValue(bytes: Uint8Array): [key: string, value: string] {
  let key = ''
  let value = ''
  readFields('KeyValue', bytes, (field, wireType, reader) => {
    if (field === 1 && wireType === WireType.LengthDelimited) key = boundedString(reader, MAX_NAME_CHARS).toLowerCase()
    else if (field === 2 && wireType === WireType.LengthDelimited) value = boundedString(reader, MAX_METADATA_CHARS)
    else return false
    return true
  })
  return [key, value]
}

/** Calls `take` for each field; fields it does not take are skipped, as protobuf requires. */
function readFields(
  what: string,
  bytes: Uint8Array,
  take: (field: number, wireType: WireType, reader: BinaryReader) => boolean,
): void {
  const reader = new BinaryReader(bytes)
  try {
    while (reader.pos < reader.len) {
      const [field, wireType] = reader.tag()
      if (!take(field, wireType, reader)) reader.skip(wireType, field)
    }
  } catch (cause) {
    if (cause instanceof MalformedError) throw cause
    throw new MalformedError('ERR_RPC_MALFORMED', `ttrpc ${what} is malformed: ${errorText(cause)}`, { cause })
  }
}

function boundedString(reader: BinaryReader, maxChars: number): string {
  const bytes = reader.bytes()
  if (bytes.byteLength > maxChars) throw new RangeError(`string of ${bytes.byteLength} bytes, allowed ${maxChars}`)
  return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
}
