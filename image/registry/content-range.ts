import { UnverifiedError } from '#protocol/errors'

/** Bytes `from` up to, not including, `to`. */
export interface ByteRange {
  readonly from: number
  readonly to: number
}

/** Value of the header Range (RFC 9110 14.1.2). */
export function rangeHeader({ from, to }: ByteRange): string {
  return `bytes=${from}-${to - 1}`
}

/**
 * Holds an answer 206 to what was asked for: exactly those bytes of a thing of that size. Throws `UnverifiedError`
 * ERR_REGISTRY_RANGE.
 *
 * @param header Content-Range (RFC 9110 14.4): "bytes 0-99/1000", or with "*" for an unknown size
 */
export function checkContentRange(header: string | undefined, asked: ByteRange, size: number, what: string): void {
  const match = /^bytes ([0-9]{1,15})-([0-9]{1,15})\/([0-9]{1,15}|\*)$/.exec(header ?? '')
  const [, first, last, total] = match ?? []
  const fits =
    Number(first) === asked.from && Number(last) === asked.to - 1 && (total === '*' || Number(total) === size)
  if (match !== null && fits) return
  throw new UnverifiedError(
    'ERR_REGISTRY_RANGE',
    `${what}: asked for ${rangeHeader(asked)} of ${size}, the registry sends ${JSON.stringify((header ?? 'no range').slice(0, 100))}`,
    { hint: 'The registry, or a proxy before it, mishandles ranges.' },
  )
}
