import test from 'ava'
import fc from 'fast-check'
import {
  readBitString,
  readBoolean,
  readDer,
  readInteger,
  readObjectId,
  readSingleDer,
  readString,
  readTime,
} from '#protocol/der'
import {
  derBitString,
  derBoolean,
  derInteger,
  derObjectId,
  derOctetString,
  derSequence,
  derTime,
  derUtf8String,
} from '#protocol/der-writer'

const one = (bytes: Uint8Array) => {
  const [value] = readDer(bytes)
  if (value === undefined) throw new Error('nothing was written')
  return value
}

test('what is written is what a strict reader reads', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const expected = bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n)
      return readInteger(one(derInteger(bytes))) === expected
    }),
  )
  const arc = fc.oneof(fc.nat(200), fc.nat(2 ** 31 - 1))
  fc.assert(
    fc.property(fc.nat(2), fc.nat(39), fc.array(arc, { maxLength: 8 }), (root, second, arcs) => {
      const dotted = [root, second, ...arcs].join('.')
      return readObjectId(one(derObjectId(dotted))) === dotted
    }),
  )
  fc.assert(
    fc.property(
      fc.string({ unit: 'grapheme', maxLength: 300 }),
      (text) => readString(one(derUtf8String(text))) === text,
    ),
  )
  const times = fc.date({ min: new Date('1950-01-01'), max: new Date('9999-12-31'), noInvalidDate: true })
  fc.assert(
    fc.property(times, (time) => {
      const seconds = Math.floor(time.getTime() / 1000) * 1000
      return readTime(one(derTime(time))).getTime() === seconds
    }),
  )
  t.true(readBoolean(one(derBoolean(true))))
  t.deepEqual(readBitString(one(derBitString(Uint8Array.of(0x06), 1))), { bytes: Uint8Array.of(6), unusedBits: 1 })
})

for (const length of [0, 1, 127, 128, 255, 256, 65_535, 65_536]) {
  test(`a value of ${length} bytes has its length in shortest form`, (t) => {
    const [octets] = readDer(readSingleDer(derSequence(derOctetString(new Uint8Array(length))), 0x30).content)
    t.is(octets?.content.length, length)
  })
}
