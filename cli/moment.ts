/** Times that people type. */
import { UsageError } from '#protocol/errors'
import type { Invocation } from './command.ts'

const ISO = /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?)(Z|[+-]\d{2}:\d{2})?)?$/

/** ISO 8601 (a day, or a time; without a zone it is UTC), or seconds since 1970. Throws `UsageError` ERR_USAGE. */
export function parseMoment(text: string): Date {
  const [, day, time = '00:00', zone = 'Z'] = ISO.exec(text) ?? []
  const moment = day === undefined ? fromSeconds(text) : new Date(`${day}T${time}${zone}`)
  // The thirtieth of February is read as the second of March by some.
  const midnight = new Date(`${day ?? '1970-01-01'}T00:00Z`)
  const exists = !Number.isNaN(midnight.getTime()) && midnight.toISOString().startsWith(day ?? '')
  if (!Number.isNaN(moment.getTime()) && exists) return moment
  throw new UsageError('ERR_USAGE', `${JSON.stringify(text)} is not a time`, {
    hint: 'Write it as 2025-07-01T12:00:00Z, or as seconds since 1970.',
  })
}

/** The time that an option names, if it is given. Throws `UsageError` ERR_USAGE. */
export function momentOf(invocation: Invocation, option: string): Date | undefined {
  const text = invocation.string(option)
  if (text === undefined) return undefined
  try {
    return parseMoment(text)
  } catch (cause) {
    if (!(cause instanceof UsageError)) throw cause
    throw new UsageError(cause.code, `--${option} ${cause.message}`, { hint: cause.hint, cause })
  }
}

function fromSeconds(text: string): Date {
  return new Date(/^\d{1,12}$/.test(text) ? 1000 * Number(text) : Number.NaN)
}
