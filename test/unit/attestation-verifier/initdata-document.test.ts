/** Initdata of an answer: what is read of it, and that counting its parts first refuses nothing that anybody writes. */
import { createHash } from 'node:crypto'
import test from 'ava'
import fc from 'fast-check'
import { stringify } from 'smol-toml'
import { inOneGo } from '#attestation/evidence/steps'
import { boundJson } from '#attestation/verifier/bounded-text'
import { type InitdataDocument, readInitdata } from '#attestation/verifier/initdata-document'

const LONG = 10_000

function read(toml: string): InitdataDocument {
  const initdata = inOneGo(readInitdata(toml))
  if (initdata === undefined) throw new TypeError('initdata was given')
  return initdata
}

const digestOf = (algorithm: string, text: string): Buffer => createHash(algorithm).update(text).digest()
const nameOf = (document: string): string => `sha256:${digestOf('sha256', document).toString('hex')}`

for (const algorithm of ['sha256', 'sha384', 'sha512']) {
  test(`initdata of any length has its ${algorithm} digest, and each document in it its own`, (t) => {
    // A character of two halves at each place where the text could be cut.
    for (const length of [10, 131_071, 131_072, 300_000]) {
      const policy = `${'x'.repeat(length)}${'\u{1f600}'.repeat(3)}`
      const data = { 'policy.yaml': policy, 'aa.toml': 'a = 1', number: 1 }
      const toml = stringify({ version: '0.1.0', algorithm, data })
      const { digest, documents } = read(toml)
      t.deepEqual(Buffer.from(digest), digestOf(algorithm, toml))
      t.deepEqual(documents, { 'policy.yaml': nameOf(policy), 'aa.toml': nameOf('a = 1') })
    }
  })
}

test('an answer without initdata claims nothing, and initdata without documents names none', (t) => {
  t.is(inOneGo(readInitdata(undefined)), undefined)
  t.deepEqual(read('algorithm = "SHA-256"\n').documents, {})
  t.deepEqual(read('algorithm = "sha256"\ndata = [1]\n').documents, {})
})

test('initdata that is not TOML, or names another algorithm, is refused as malformed', (t) => {
  for (const toml of ['=', 'algorithm = "md5"', 'algorithm = 1', '', 'x = """', "x = '''a", '#']) {
    t.throws(() => read(toml), { code: 'ERR_INITDATA_MALFORMED' }, toml)
    t.throws(() => read(`${toml}${' '.repeat(LONG)}`), { code: 'ERR_INITDATA_MALFORMED' }, toml)
  }
})

test('whatever is written in documents and comments, however they are quoted, counts as no part', (t) => {
  const special = fc.constantFrom('=', '[', '{', '.', ',', "'", '"', '""', "''", '\\', '#', '\n', 'x')
  const property = fc.property(fc.array(special, { maxLength: 40 }), (characters) => {
    const once = `${characters.join('')}x`
    const text = once.repeat(Math.ceil(LONG / once.length))
    const literal = text.replaceAll("'", '')
    const lines = text.replaceAll('\\', '').replaceAll('"', '') // what remains needs no escapes
    const toml = [
      'algorithm = "sha256"',
      `# ${text.replaceAll('\n', '')}`,
      '[data]',
      `basic = ${JSON.stringify(text)}`,
      `literal = '${literal.replaceAll('\n', '')}'`,
      `lines = """\n${lines}"""""`,
      `raw = '''\n${literal}'''''`,
    ].join('\n')
    const { documents } = read(toml)
    return (
      documents.basic === nameOf(text) &&
      documents.literal === nameOf(literal.replaceAll('\n', '')) &&
      documents.lines === nameOf(`${lines}""`) &&
      documents.raw === nameOf(`${literal}''`)
    )
  })
  t.notThrows(() => fc.assert(property, { numRuns: 30 }))
})

test('what strings of an answer hold counts as no part of it', (t) => {
  const property = fc.property(fc.string({ unit: 'binary', maxLength: 50 }), (text) => {
    const long = `${text}{[:,"\\`.repeat(2_000)
    inOneGo(boundJson(JSON.stringify({ [long]: long, list: [long, long] })))
    return true
  })
  t.notThrows(() => fc.assert(property, { numRuns: 20 }))
})
