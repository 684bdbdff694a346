/** Parts of a reason are a host's or a stranger's own words: none may steer the terminal. */
export function printable(line: string): string {
  return line.replaceAll(
    /[\p{Cc}\p{Cf}]/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}
