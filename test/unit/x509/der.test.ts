import test from 'ava'
import fc from 'fast-check'
import {
  derLength,
  readBitString,
  readBoolean,
  readByteString,
  readDer,
  readInteger,
  readObjectId,
  readSmallInteger,
  readString,
  readTime,
} from '#protocol/der'
import { MalformedError } from '#protocol/errors'
import { der, text, time } from '../../fixtures/x509/encode-der.ts'
import { refusesOrKeeps } from '../parser-property.ts'

const one = (bytes: Uint8Array) => {
  const [value] = readDer(bytes)
  if (value === undefined) throw new Error('nothing was encoded')
  return value
}

/** Shortest two's complement. */
function encodeInteger(value: bigint): Uint8Array {
  let length = 1
  while (value < -(1n << BigInt(8 * length - 1)) || value >= 1n << BigInt(8 * length - 1)) length++
  const bytes = Buffer.from(
    BigInt.asUintN(8 * length, value)
      .toString(16)
      .padStart(2 * length, '0'),
    'hex',
  )
  return der(0x02, bytes)
}

function encodeObjectId(arcs: readonly bigint[]): Uint8Array {
  const [root = 0n, second = 0n, ...rest] = arcs
  const septets = [40n * root + second, ...rest].flatMap((arc) => {
    const bytes = [Number(arc & 0x7fn)]
    for (let left = arc >> 7n; left > 0n; left >>= 7n) bytes.unshift(Number(left & 0x7fn) | 0x80)
    return bytes
  })
  return der(0x06, Uint8Array.from(septets))
}

test('integers of up to 64 bytes are read, negative ones as well', (t) => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: -(1n << 500n), max: 1n << 500n }),
      (value) => readInteger(one(encodeInteger(value))) === value,
    ),
  )
  t.throws(() => readInteger(one(encodeInteger(1n << 512n))), { code: 'ERR_DER' })
  t.is(readSmallInteger(one(encodeInteger(7n)), 0, 7), 7)
  t.throws(() => readSmallInteger(one(encodeInteger(8n)), 0, 7), { code: 'ERR_DER' })
})

test('object identifiers are read with arcs of any size', (t) => {
  const arcs = fc.tuple(
    fc.bigInt({ min: 0n, max: 39n }),
    fc.array(fc.bigInt({ min: 0n, max: 1n << 128n }), { maxLength: 8 }),
  )
  fc.assert(
    fc.property(fc.constantFrom(0n, 1n, 2n), arcs, (root, [second, rest]) => {
      const all = [root, second, ...rest]
      return readObjectId(one(encodeObjectId(all))) === all.join('.')
    }),
  )
  t.is(
    readObjectId(one(encodeObjectId([2n, 25n, 329800735698586629295641978511506172918n]))),
    '2.25.329800735698586629295641978511506172918',
  )
})

test('times are read to the second, from 1950 to 9999', (t) => {
  const moments = fc.date({ min: new Date('1950-01-01'), max: new Date('9999-12-31T23:59:59Z'), noInvalidDate: true })
  t.notThrows(() =>
    fc.assert(
      fc.property(moments, (moment) => {
        moment.setUTCMilliseconds(0)
        return readTime(one(time(moment))).getTime() === moment.getTime()
      }),
    ),
  )
})

const refused: readonly [what: string, read: () => unknown][] = [
  ['an integer without bytes', () => readInteger(one(der(0x02)))],
  ['an integer with a needless zero', () => readInteger(one(der(0x02, Uint8Array.of(0, 0x7f))))],
  ['a negative integer with a needless ff', () => readInteger(one(der(0x02, Uint8Array.of(0xff, 0x80))))],
  ['an object identifier that ends within an arc', () => readObjectId(one(der(0x06, Uint8Array.of(0x2a, 0x80))))],
  ['an object identifier with a needless byte', () => readObjectId(one(der(0x06, Uint8Array.of(0x2a, 0x80, 0x01))))],
  ['an empty object identifier', () => readObjectId(one(der(0x06)))],
  ['true spelt as 01', () => readBoolean(one(der(0x01, Uint8Array.of(1))))],
  ['a boolean of two bytes', () => readBoolean(one(der(0x01, Uint8Array.of(0, 0))))],
  ['eight unused bits', () => readBitString(one(der(0x03, Uint8Array.of(8, 0))))],
  ['unused bits of no byte', () => readBitString(one(der(0x03, Uint8Array.of(1))))],
  ['a signature of seven bits', () => readByteString(one(der(0x03, Uint8Array.of(1, 2))))],
  ['text that is not UTF-8', () => readString(one(der(0x0c, Uint8Array.of(0xff))))],
  ['ASCII with a high byte', () => readString(one(der(0x16, Uint8Array.of(0x80))))],
  ['a time with a zone', () => readTime(one(text('2301010000+0100', 0x17)))],
  ['a time with fractions', () => readTime(one(text('20230101000000.5Z', 0x18)))],
  ['a time in another type', () => readTime(one(text('230101000000Z', 0x0c)))],
  ['a length in the indefinite form', () => readDer(Uint8Array.of(0x30, 0x80, 0, 0))],
  ['a length in a longer form than needed', () => readDer(Uint8Array.of(0x04, 0x81, 1, 0))],
  ['a length of four bytes', () => readDer(Uint8Array.of(0x04, 0x84, 0, 0, 0, 1, 0))],
  ['a number of a tag in several bytes', () => readDer(Uint8Array.of(0x1f, 0x81, 1, 0))],
  ['fewer bytes than the length says', () => readDer(Uint8Array.of(0x04, 2, 0))],
]
for (const [what, read] of refused) {
  test(`DER with ${what} is refused`, (t) => {
    t.throws(read, { instanceOf: MalformedError, code: 'ERR_DER' })
  })
}

test('whatever bytes come as DER, they are values that cover them, or refused', (t) => {
  refusesOrKeeps(t, fc.uint8Array({ maxLength: 64 }), readDer, (values, bytes) => {
    return Buffer.concat(values.map(({ encoded }) => encoded)).equals(bytes)
  })
  refusesOrKeeps(t, fc.uint8Array({ maxLength: 64 }), derLength, (length, bytes) => length <= bytes.length)
})
