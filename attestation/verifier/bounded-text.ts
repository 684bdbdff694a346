/**
 * Bounds for texts that libraries read in one go: JSON of an answer, TOML of initdata. What they cost is less a matter of
 * length than of parts: a megabyte of one string is read in a few milliseconds, a megabyte of members in hundreds. So parts
 * are counted first, in slices, and a text with more than anybody needs is refused before a library sees it.
 *
 * Counting need not be exact: it decides nothing but how long somebody else may have to wait. Inside of strings, where the
 * bulk of honest texts is, nothing is counted.
 */
import { MalformedError } from '#protocol/errors'
import type { Steps } from '../evidence/steps.ts'

/** Short texts are not worth counting: whatever they hold, they are read in a few milliseconds. */
const UNCOUNTED_CHARACTERS = 8 * 1024
/** Objects, arrays and members; the longest honest answer has some hundred. */
const MAX_JSON_PARTS = 4_096
/** Elements of arrays: some agents send bytes as numbers. */
const MAX_JSON_ELEMENTS = 256 * 1024
/** Tables, keys, dots and elements; initdata has a handful. */
const MAX_TOML_PARTS = 4_096
/** Characters between two pauses: a part of a millisecond. */
const STEP_CHARACTERS = 64 * 1024

const CODE = { quote: 0x22, backslash: 0x5c, apostrophe: 0x27, hash: 0x23, comma: 0x2c } as const
const JSON_PARTS = codesOf('{[:')
const TOML_PARTS = codesOf('={[.,')

/** Throws `MalformedError` ERR_KBS_MESSAGE for JSON of too many parts; whether it is JSON at all is not looked at. */
export function* boundJson(text: string): Steps<void> {
  if (text.length <= UNCOUNTED_CHARACTERS) return
  const steps = new Pauses()
  let [parts, elements] = [0, 0]
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === CODE.quote) at = endOfString(text, at)
    else if (code === CODE.comma) elements++
    else if (JSON_PARTS.has(code)) parts++
    if (parts > MAX_JSON_PARTS || elements > MAX_JSON_ELEMENTS) {
      throw new MalformedError('ERR_KBS_MESSAGE', 'the message has more parts than any of its kind', {
        hint: `At most ${MAX_JSON_PARTS} objects, arrays and members, and ${MAX_JSON_ELEMENTS} elements are read.`,
      })
    }
    if (steps.isTime(at)) yield
  }
}

/** Throws `MalformedError` ERR_INITDATA_MALFORMED for TOML of too many parts; whether it is TOML is not looked at. */
export function* boundToml(text: string): Steps<void> {
  if (text.length <= UNCOUNTED_CHARACTERS) return
  const steps = new Pauses()
  let parts = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === CODE.quote || code === CODE.apostrophe) at = endOfTomlString(text, at)
    else if (code === CODE.hash) at = indexOrEnd(text, '\n', at)
    else if (TOML_PARTS.has(code)) parts++
    if (parts > MAX_TOML_PARTS) {
      throw new MalformedError('ERR_INITDATA_MALFORMED', 'initdata has more tables and keys than any', {
        hint: `At most ${MAX_TOML_PARTS} tables, keys and elements are read.`,
      })
    }
    if (steps.isTime(at)) yield
  }
}

class Pauses {
  #next = STEP_CHARACTERS

  isTime(at: number): boolean {
    if (at < this.#next) return false
    this.#next = at + STEP_CHARACTERS
    return true
  }
}

/** Of the last quotation mark, or the text's when it has none. @param at of the first one */
function endOfString(text: string, at: number): number {
  return endOfBasic(text, '"', at + 1)
}

/** Where a string with escapes closes. Native search: the longest strings are base64, which has none. */
function endOfBasic(text: string, close: string, from: number): number {
  for (let begin = from; ; ) {
    const end = indexOrEnd(text, close, begin)
    if (end === text.length || !isEscaped(text, end, begin)) return end
    begin = end + 1
  }
}

/** Whether an odd number of backslashes stands before. @param from of the part in which they count */
function isEscaped(text: string, at: number, from: number): boolean {
  let first = at
  while (first > from && text.charCodeAt(first - 1) === CODE.backslash) first--
  return (at - first) % 2 === 1
}

/**
 * TOML 1.0, "String": basic ones have escapes, literal ones none; three marks begin and end one of several lines, which may
 * itself end with two more.
 */
function endOfTomlString(text: string, at: number): number {
  const mark = text[at] ?? ''
  const three = mark.repeat(3)
  if (!text.startsWith(three, at)) return mark === "'" ? indexOrEnd(text, mark, at + 1) : endOfString(text, at)
  let end = mark === "'" ? indexOrEnd(text, three, at + 3) : endOfBasic(text, three, at + 3)
  for (end += 2; text[end + 1] === mark; ) end++
  return end
}

function indexOrEnd(text: string, what: string, from: number): number {
  const found = text.indexOf(what, from)
  return found === -1 ? text.length : found
}

function codesOf(characters: string): ReadonlySet<number> {
  return new Set(Array.from(characters, (character) => character.charCodeAt(0)))
}
