/** Where a command prints: results on stdout (text or one JSON value), progress and errors on stderr. */
import { writeSync } from 'node:fs'
import { styleText } from 'node:util'
import { AdministratorRefusal } from '#attestation/verifier/admin/refusal'
import { GuestRefusalError } from '#host-shim/pod/guest-refusal'
import { CaissonError, DeniedError, errorText } from '#protocol/errors'
import { explainCode } from './error-table.ts'

export class Output {
  readonly json: boolean

  constructor(json: boolean) {
    this.json = json
  }

  /** Coloured where the result goes to a terminal that shows colours (NO_COLOR and FORCE_COLOR count); else as it is. */
  paint(colour: 'green' | 'red' | 'yellow', text: string): string {
    return this.json ? text : styleText(colour, text, { stream: process.stdout })
  }

  /** The result: JSON when asked for, else the text. */
  result(value: unknown, text: string): void {
    this.write(this.json ? `${JSON.stringify(value)}\n` : text.endsWith('\n') || text === '' ? text : `${text}\n`)
  }

  /** Synchronous, so that nothing is lost when the process ends. */
  write(text: string | Uint8Array): void {
    writeAll(1, typeof text === 'string' ? new TextEncoder().encode(text) : text)
  }

  /** A line of progress; as a JSON event with --json. */
  progress(text: string, event: Readonly<Record<string, unknown>> = {}): void {
    const line = this.json ? JSON.stringify({ progress: text, ...event }) : text
    writeAll(2, new TextEncoder().encode(`${line}\n`))
  }

  error(error: unknown): void {
    writeAll(
      2,
      new TextEncoder().encode(this.json ? `${JSON.stringify({ error: errorJson(error) })}\n` : errorLines(error)),
    )
  }
}

function writeAll(fd: number, bytes: Uint8Array): void {
  let offset = 0
  while (offset < bytes.byteLength) {
    try {
      offset += writeSync(fd, bytes, offset)
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code
      if (code === 'EPIPE') return
      if (code !== 'EAGAIN') throw error
    }
  }
}

/** The host learns a code from the guest, no reason; what the code means in general is no secret. */
function guestRefusalLines(error: GuestRefusalError): string[] {
  const explained = explainCode(error.code)
  const lines = explained === undefined ? [] : [`  cause: ${explained.cause}`, `  remedy: ${explained.remedy}`]
  if (error.correlationId !== undefined) lines.push(`  the tenant finds the reason under ${error.correlationId}`)
  return lines
}

function errorJson(error: unknown): Record<string, unknown> {
  if (!(error instanceof CaissonError)) return { code: 'ERR_INTERNAL', message: errorText(error) }
  const denial = error instanceof DeniedError ? { field: error.field, allowed: error.allowed, asked: error.asked } : {}
  if (error instanceof GuestRefusalError) {
    const explained = explainCode(error.code)
    return { code: error.code, message: error.message, ...explained, correlationId: error.correlationId }
  }
  return { code: error.code, message: error.message, remedy: remedyOf(error), ...denial }
}

/** What fits this case best, else what helps with the code in general; a verifier's own code says more than that it refused. */
function remedyOf(error: CaissonError): string | undefined {
  return error.hint ?? explainCode(error instanceof AdministratorRefusal ? error.refusal.code : error.code)?.remedy
}

/** Code and what failed; why, as far as it is known; what to do. */
function errorLines(error: unknown): string {
  if (!(error instanceof CaissonError)) {
    return `caisson: ERR_INTERNAL: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`
  }
  const lines = [`caisson: ${error.code}: ${error.message}`]
  const ownCause = error instanceof GuestRefusalError ? undefined : error.cause
  for (let cause = ownCause, depth = 0; cause !== undefined && depth < 4; depth++) {
    lines.push(`  cause: ${cause instanceof CaissonError ? `${cause.code}: ` : ''}${errorText(cause)}`)
    cause = cause instanceof Error ? cause.cause : undefined
  }
  const remedy = remedyOf(error)
  if (error instanceof GuestRefusalError) lines.push(...guestRefusalLines(error))
  else if (remedy !== undefined) lines.push(`  remedy: ${remedy}`)
  return `${lines.join('\n')}\n`
}
