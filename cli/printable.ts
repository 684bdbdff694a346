/**
 * Text of others on the user's terminal. A certificate's name or a command line could otherwise move the cursor, clear the
 * screen, change the direction of writing or begin a line that looks like ours.
 */

/** Controls (C0 with line ends, DEL, C1), separators of lines and paragraphs, what is not seen (marks of direction). */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\u2028\u2029]/gu

/** One line, in which each such character is its number: `\u{1b}`. */
export function printable(text: string): string {
  return text.replaceAll(UNPRINTABLE, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`)
}
