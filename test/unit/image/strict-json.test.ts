import test from 'ava'
import fc from 'fast-check'
import { parseStrictJson } from '#image/json/strict-json'

test('every JSON value reads as JSON.parse reads it', (t) => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom(undefined, 2), (value, indent) => {
      const text = JSON.stringify(value, undefined, indent)
      t.is(JSON.stringify(parseStrictJson(text, 'test')), JSON.stringify(JSON.parse(text)))
    }),
  )
})

test('a member that appears twice is refused, at any depth and in any spelling, with its place', (t) => {
  const error = t.throws(() => parseStrictJson('{"a": 1,\n "b": {"c": 1, "\\u0063": 2}}', 'policy'), {
    code: 'ERR_JSON',
  })
  t.is(error?.message, 'policy: line 2, column 16: duplicate member "c"')
})

test('members named like those of Object.prototype are only what the document says', (t) => {
  const value = parseStrictJson('{"__proto__": {"x": 1}, "constructor": 2}', 'test')
  t.deepEqual(Object.keys(value as object), ['__proto__', 'constructor'])
  t.is(Object.getPrototypeOf(value), null)
})

test('what RFC 8259 does not allow is refused', (t) => {
  const refused = ['', ' ', '{', '{}}', '[1,]', '{"a":1,}', "{'a':1}", '{a:1}', '01', '+1', '1.', '.5', 'NaN', '1e999']
  refused.push('"\t"', '"\\x41"', '"\\u12g4"', '"', 'tru', 'nullx', '[1 2]', '{"a" 1}', '\ufeff{}', '// x\n1', '-', '[')
  for (const text of refused) t.throws(() => parseStrictJson(text, 'test'), { code: 'ERR_JSON' }, text)
  t.throws(() => parseStrictJson('['.repeat(100_000), 'test'), { code: 'ERR_JSON', message: /deeper than 64/ })
  t.throws(() => parseStrictJson(Uint8Array.of(0x22, 0xff, 0x22), 'test'), { code: 'ERR_JSON', message: /UTF-8/ })
})

test('a document cut anywhere is refused', (t) => {
  const text = '{"default": [{"type": "reject"}], "n": -1.5e3, "t": true, "s": "\\u00e9\\n"}'
  for (let length = 0; length < text.length; length++) {
    t.throws(() => parseStrictJson(text.slice(0, length), 'test'), { code: 'ERR_JSON' }, `${length}`)
  }
})
