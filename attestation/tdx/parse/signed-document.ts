/**
 * Intel signs TCB information and identities as the text that stands in its answer, byte for byte: parsing and printing
 * it anew would not give the same bytes. So members are cut out of the text as they are.
 */
import { MalformedError } from '#protocol/errors'

export const MAX_DOCUMENT_CHARS: number = 1024 * 1024

/** Strings, brackets, commas and colons: all that matters for finding where a member begins and ends. */
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]/g

/**
 * Text of each member of the object that `text` consists of, by name. Throws `MalformedError` ERR_JSON_DOCUMENT for what
 * is not JSON, no object, or an object that names a member twice (two readers could each see another one).
 */
export function splitMembers(text: string): ReadonlyMap<string, string> {
  if (text.length > MAX_DOCUMENT_CHARS) throw malformed(`${text.length} characters, limit ${MAX_DOCUMENT_CHARS}`)
  try {
    JSON.parse(text)
  } catch (cause) {
    throw new MalformedError('ERR_JSON_DOCUMENT', 'document: not JSON', { cause })
  }
  if (!/^\s*\{/.test(text)) throw malformed('not an object')
  // From here on the text is known to be an object of valid JSON.
  const members = new Map<string, string>()
  let depth = 0
  let name: string | undefined
  let start = -1
  for (const { 0: token, index } of text.matchAll(TOKEN)) {
    if (depth === 1 && name === undefined && token.startsWith('"')) name = String(JSON.parse(token))
    else if (depth === 1 && token === ':' && start < 0) start = index + 1
    else if (depth === 1 && (token === ',' || token === '}') && name !== undefined) {
      if (members.has(name)) throw malformed(`member ${JSON.stringify(name.slice(0, 64))} occurs twice`)
      members.set(name, text.slice(start, index).trim())
      name = undefined
      start = -1
    }
    if (token === '{' || token === '[') depth++
    else if (token === '}' || token === ']') depth--
  }
  return members
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_JSON_DOCUMENT', `document: ${why}`)
}
