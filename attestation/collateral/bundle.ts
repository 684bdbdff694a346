/**
 * Collateral as one file, to carry it to verifiers that reach neither AMD nor Intel: JSON, each answer under the address of
 * the maker's service. Whoever imports it checks it as if it had come from there.
 */
import { toBase64 } from '#protocol/encoding'
import { JsonFields } from '#protocol/json-fields'
import type { CollateralFile } from '../evidence/collateral.ts'
import { PUBLIC_ENDPOINTS } from '../evidence/online/fetch-collateral.ts'
import { parseFiles, type StoredAnswer } from './answer-store.ts'

export interface BundledAnswer {
  readonly url: string
  readonly files: readonly CollateralFile[]
}

export const MAX_BUNDLE_BYTES: number = 32 * 1024 * 1024
const CODE = 'ERR_COLLATERAL_BUNDLE'
const MAX_ANSWERS = 20_000

/** On one line, without its end. As many of the answers, from the first on, as one bundle takes; one at least. */
export async function encodeBundle(answers: AsyncIterable<StoredAnswer>): Promise<string> {
  const head = '{"version":1,"answers":['
  const tail = ']}'
  const encoded: string[] = []
  let room = MAX_BUNDLE_BYTES - head.length - tail.length
  for await (const { url, files, fetchedAt } of answers) {
    const text = JSON.stringify({
      url,
      fetchedAt: fetchedAt.toISOString(),
      files: files.map(({ name, bytes }) => ({ name, body: toBase64(bytes) })),
    })
    room -= Buffer.byteLength(text) + 1
    if (encoded.length > 0 && (room < 0 || encoded.length === MAX_ANSWERS)) break
    encoded.push(text)
  }
  return `${head}${encoded.join(',')}${tail}`
}

/** Throws `MalformedError` ERR_COLLATERAL_BUNDLE, ERR_COLLATERAL_ANSWER or ERR_BASE64. */
export function parseBundle(text: string): readonly BundledAnswer[] {
  const fields = JsonFields.parse(text, 'collateral bundle', { code: CODE, maxChars: MAX_BUNDLE_BYTES })
  fields.only(['version', 'answers'])
  fields.integer('version', 1, 1)
  return fields.objects('answers', MAX_ANSWERS).map((answer) => {
    answer.only(['url', 'fetchedAt', 'files'])
    const url = answer.string('url', 1024)
    if (!isMakers(url)) throw answer.error('url', 'not an address of AMD’s or Intel’s service')
    return { url, files: parseFiles(answer) }
  })
}

function isMakers(url: string): boolean {
  return URL.canParse(url) && Object.values(PUBLIC_ENDPOINTS).includes(new URL(url).origin)
}
