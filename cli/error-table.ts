/** Cause and remedy of an error code, from docs/errors.md: one place for people and for the command line. */
import { readFileSync } from 'node:fs'

const TABLE = new URL('../docs/errors.md', import.meta.url)

export function explainCode(code: string): { readonly cause: string; readonly remedy: string } | undefined {
  if (!/^ERR_[A-Z0-9_]+$/.test(code)) return undefined
  const row = readFileSync(TABLE, 'utf8')
    .split('\n')
    .find((line) => line.startsWith(`| \`${code}\` |`))
  const [, cause, remedy] = row?.replace(/ \|$/, '').split(' | ') ?? []
  return cause === undefined || remedy === undefined ? undefined : { cause, remedy }
}
