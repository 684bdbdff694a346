/**
 * One command to the TPM and its answer: framing, authorisations, response codes (TPM 2.0 part 1, section 18). What the
 * TPM answers is parsed as carefully as anything else: a host may emulate the device.
 */
import { ByteReader } from '#protocol/byte-reader'
import { concatBytes } from '#protocol/encoding'
import { MalformedError, UnavailableError } from '#protocol/errors'
import { sized, u8, u16, u32 } from '../parse/marshal.ts'
import { responseText } from './response-codes.ts'

/** One whole command, one whole response; never two at a time. `Platform.tpm` is one. */
export interface TpmDevice {
  submit(command: Uint8Array): Promise<Uint8Array>
}

/** The TPM answered a command with an error. Code ERR_TPM_RESPONSE. */
export class TpmResponseError extends UnavailableError {
  readonly command: string
  readonly responseCode: number

  constructor(command: string, responseCode: number) {
    super('ERR_TPM_RESPONSE', `${command}: ${responseText(responseCode)}`, {
      hint: 'Look up the response code in TPM 2.0 part 2, section 6.6.',
    })
    this.command = command
    this.responseCode = responseCode
  }
}

export interface Authorization {
  readonly session: number
}

/** TPM_RS_PW: the empty password. */
export const EMPTY_PASSWORD: Authorization = { session: 0x4000_0009 }

export interface TpmCommand {
  /** As the specification names it, for messages. */
  readonly name: string
  readonly code: number
  readonly handles: readonly number[]
  readonly authorizations: readonly Authorization[]
  readonly parameters: Uint8Array
  /** How many handles the response begins with. */
  readonly outHandles: 0 | 1
}

export interface TpmResponse {
  readonly handle: number
  readonly parameters: ByteReader
}

const TAG_NO_SESSIONS = 0x8001
const TAG_SESSIONS = 0x8002
const HEADER_BYTES = 10
const MAX_MESSAGE = 4096
const CONTINUE_SESSION = 0x01

const RC_SUCCESS = 0
/** Start-up state is still being settled: the identical command succeeds when sent again. */
const RC_RETRY = 0x922
const MAX_ATTEMPTS = 8

/** Throws `TpmResponseError`, or `MalformedError` ERR_TPM_RESPONSE_FORMAT. */
export async function runCommand(device: TpmDevice, command: TpmCommand): Promise<TpmResponse> {
  const bytes = encodeCommand(command)
  for (let attempt = 1; ; attempt++) {
    const response = await device.submit(bytes)
    const code = responseCode(command.name, response)
    if (code === RC_SUCCESS) return parseResponse(command, response)
    if (code !== RC_RETRY || attempt === MAX_ATTEMPTS) throw new TpmResponseError(command.name, code)
  }
}

function encodeCommand(command: TpmCommand): Uint8Array {
  const withSessions = command.authorizations.length > 0
  const area = concatBytes(
    ...command.authorizations.map(({ session }) =>
      concatBytes(u32(session), sized(), u8(attributes(session)), sized()),
    ),
  )
  const body = concatBytes(
    ...command.handles.map(u32),
    ...(withSessions ? [u32(area.length), area] : []),
    command.parameters,
  )
  const size = HEADER_BYTES + body.length
  if (size > MAX_MESSAGE) throw new RangeError(`${command.name}: command of ${size} bytes`)
  return concatBytes(u16(withSessions ? TAG_SESSIONS : TAG_NO_SESSIONS), u32(size), u32(command.code), body)
}

/** Policy sessions are kept, so that they can be flushed in every case; passwords have no session to keep. */
function attributes(session: number): number {
  return session === EMPTY_PASSWORD.session ? 0 : CONTINUE_SESSION
}

function responseCode(name: string, response: Uint8Array): number {
  if (response.length > MAX_MESSAGE) throw malformed(name, `answer of ${response.length} bytes`)
  const reader = new ByteReader(response, `${name} answer`)
  const tag = reader.u16be()
  const size = reader.u32be()
  const code = reader.u32be()
  if (size !== response.length) throw malformed(name, `says it has ${size} bytes, has ${response.length}`)
  if (tag !== TAG_NO_SESSIONS && tag !== TAG_SESSIONS) throw malformed(name, `tag 0x${tag.toString(16)}`)
  return code
}

function parseResponse(command: TpmCommand, response: Uint8Array): TpmResponse {
  const reader = new ByteReader(response, `${command.name} answer`)
  const tag = reader.u16be()
  reader.skip(HEADER_BYTES - 2)
  if ((tag === TAG_SESSIONS) !== command.authorizations.length > 0) throw malformed(command.name, 'unexpected sessions')
  const handle = command.outHandles === 1 ? reader.u32be() : 0
  if (tag === TAG_NO_SESSIONS) return { handle, parameters: parametersOf(command, reader.bytes(reader.remaining)) }
  const parameters = reader.bytes(reader.u32be())
  for (const _ of command.authorizations) {
    reader.skip(reader.u16be()) // nonceTPM
    reader.skip(1) // attributes
    reader.skip(reader.u16be()) // hmac: empty for passwords and unsalted policy sessions
  }
  reader.end()
  return { handle, parameters: parametersOf(command, parameters) }
}

function parametersOf(command: TpmCommand, bytes: Uint8Array): ByteReader {
  return new ByteReader(bytes, `${command.name} answer`)
}

function malformed(name: string, why: string): MalformedError {
  return new MalformedError('ERR_TPM_RESPONSE_FORMAT', `${name}: answer of the TPM: ${why}`)
}
