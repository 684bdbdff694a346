/** Where a command listens, as it is typed. */
import { UsageError } from '#protocol/errors'

export interface ListenAddress {
  readonly host: string
  readonly port: number
}

const ADDRESS = /^(?:\[(?<six>[0-9A-Fa-f:.]+)\]|(?<four>[0-9A-Za-z.-]+)):(?<port>\d{1,5})$/

/**
 * HOST:PORT, where an IPv6 address stands in brackets.
 *
 * @param option that has it, without dashes
 * @throws UsageError ERR_USAGE
 */
export function parseListen(text: string, option: string): ListenAddress {
  const { six, four, port } = ADDRESS.exec(text)?.groups ?? {}
  const host = six ?? four
  if (host !== undefined && Number(port) <= 65_535) return { host, port: Number(port) }
  throw new UsageError('ERR_USAGE', `--${option} ${JSON.stringify(text)} is not HOST:PORT`, {
    hint: `Example: --${option} 127.0.0.1:8443, or [::1]:8443`,
  })
}
