import test from 'ava'
import fc from 'fast-check'
import {
  concatBytes,
  equalBytes,
  fromBase64,
  fromBase64Url,
  fromHex,
  toBase64,
  toBase64Url,
  toHex,
} from '#protocol/encoding'

test('every encoding is the standard one and reads back', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      const buffer = Buffer.from(bytes)
      t.is(toHex(bytes), buffer.toString('hex'))
      t.is(toBase64(bytes), buffer.toString('base64'))
      t.is(toBase64Url(bytes), buffer.toString('base64url'))
      t.true(equalBytes(fromHex(toHex(bytes), 'x'), bytes))
      t.true(equalBytes(fromHex(toHex(bytes).toUpperCase(), 'x'), bytes))
      t.true(equalBytes(fromBase64(toBase64(bytes), 'x'), bytes))
      t.true(equalBytes(fromBase64Url(toBase64Url(bytes), 'x'), bytes))
    }),
  )
})

test('one value has one spelling in base64: no space, no missing padding, no stray bits', (t) => {
  for (const text of [
    'A',
    'AA',
    'AB==',
    'A===',
    'AAA',
    'AA==A',
    '====',
    '=',
    'AA =',
    'A-==',
    'AAAA\n',
    'AAB=',
    '\u00c3AAA',
  ]) {
    t.throws(() => fromBase64(text, 'value'), { code: 'ERR_BASE64', message: /^value: / }, JSON.stringify(text))
  }
  for (const text of ['A', 'AB', 'AA==', 'A+AA', 'A/AA', 'AA A', 'AAB']) {
    t.throws(() => fromBase64Url(text, 'value'), { code: 'ERR_BASE64' }, JSON.stringify(text))
  }
})

test('hexadecimal comes in pairs of digits', (t) => {
  for (const text of ['0', 'g0', '0x00', '00 ', '-1']) t.throws(() => fromHex(text, 'value'), { code: 'ERR_HEX' }, text)
})

test('bytes are joined and compared by content', (t) => {
  t.deepEqual(concatBytes(Uint8Array.of(1), new Uint8Array(), Uint8Array.of(2, 3)), Uint8Array.of(1, 2, 3))
  t.false(equalBytes(Uint8Array.of(1), Uint8Array.of(1, 2)))
  t.false(equalBytes(Uint8Array.of(1), Uint8Array.of(2)))
})

test('what was read from base64 is nowhere but in the array that its caller may wipe', (t) => {
  const secret = Uint8Array.from({ length: 32 }, (_, index) => 200 - index)
  const text = toBase64(secret)
  // Node shares one piece of memory among small buffers, and goes on to the next when it is full.
  const pool = (): Buffer => Buffer.from(Buffer.allocUnsafe(1).buffer)
  const pools = [pool()]
  const bytes = fromBase64(text, 'key')
  pools.push(pool())
  t.deepEqual(bytes, secret)
  for (const shared of pools) t.false(shared.includes(Buffer.from(secret.buffer)))
})
