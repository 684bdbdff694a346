/** Columns of the verifier's store, read with their types. */
import { UnavailableError } from '#protocol/errors'

export type Row = Readonly<Record<string, unknown>>

/** A text column; a wrong type means the store is not ours. */
export function text(row: Row | undefined, column: string): string {
  const value = row?.[column]
  if (typeof value !== 'string') throw corrupt(column)
  return value
}

export function optionalText(row: Row | undefined, column: string): string | undefined {
  return row?.[column] === null ? undefined : text(row, column)
}

export function integer(row: Row | undefined, column: string): number {
  const value = row?.[column]
  if (typeof value !== 'number') throw corrupt(column)
  return value
}

export function optionalInteger(row: Row | undefined, column: string): number | undefined {
  return row?.[column] === null ? undefined : integer(row, column)
}

export function blob(row: Row | undefined, column: string): Uint8Array {
  const value = row?.[column]
  if (!(value instanceof Uint8Array)) throw corrupt(column)
  return value
}

function corrupt(column: string): UnavailableError {
  return new UnavailableError('ERR_STORE_FAILED', `the verifier's store holds an unreadable ${column}`)
}
