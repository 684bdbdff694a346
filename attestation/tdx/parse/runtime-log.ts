/**
 * The log of earlier versions of CoCo's attestation agent (`aa_eventlog`): lines of text, the first of which says what the
 * register held before. Each line is measured into RTMR3, the first one too.
 */
import { fromHex, toHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'

export interface RuntimeLog {
  /** What the register held before the first line, 48 bytes. */
  readonly initial: Uint8Array
  /** As they are measured; the line about the beginning first. */
  readonly lines: readonly string[]
}

const MAX_CHARS = 1024 * 1024
const MAX_LINES = 4096
const INIT = /^INIT (sha384)\/([0-9a-fA-F]{96})$/

/** Throws `MalformedError` ERR_RUNTIME_LOG. */
export function parseRuntimeLog(text: string): RuntimeLog {
  if (text.length > MAX_CHARS) throw malformed(`${text.length} characters, limit ${MAX_CHARS}`)
  const [first = '', ...events] = text
    .trimEnd()
    .split('\n', MAX_LINES + 1)
    .map((line) => line.trimEnd())
  if (events.length >= MAX_LINES) throw malformed(`more than ${MAX_LINES - 1} events`)
  const [, algorithm = '', value = ''] = INIT.exec(first) ?? []
  if (algorithm === '') throw malformed('its first line is not "INIT sha384/" and the value of a register')
  const initial = fromHex(value, 'runtime log')
  return { initial, lines: [`INIT ${algorithm}/${toHex(initial)}`, ...events] }
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_RUNTIME_LOG', `runtime log: ${why}`)
}
