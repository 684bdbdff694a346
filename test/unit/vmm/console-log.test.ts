import test from 'ava'
import fc from 'fast-check'
import { ConsoleReader } from '#vmm/console-log'

function read(text: string): ConsoleReader {
  const reader = new ConsoleReader(undefined)
  for (const byte of Buffer.from(text, 'latin1')) reader.push(Uint8Array.of(byte))
  return reader
}

test('lines of the form "caisson: <code>" are codes, in order', (t) => {
  t.deepEqual(read('caisson: init-start\r\r\nnoise\ncaisson: agent-start\n').codes, ['init-start', 'agent-start'])
})

test('a code behind the firmware’s screen clearing is found', (t) => {
  t.deepEqual(read('\x1b[2J\x1b[01;01H\x1b[=3hcaisson: init-start\n').codes, ['init-start'])
})

test('what only resembles a code is none', (t) => {
  const text = 'xcaisson: a\ncaisson: A\ncaisson:  a\ncaisson: a b\ncaisson: \ncaisson: a;rm\n'
  t.deepEqual(read(text).codes, [])
})

test('the tail holds printable characters only', (t) => {
  t.is(read('a\x07b\x1b]0;title\x9b31m\nc').tail(), 'ab0;title31m\nc')
})

test('an endless line, endless lines and endless codes stay bounded', (t) => {
  const reader = new ConsoleReader(undefined)
  for (let count = 0; count < 100; count += 1) reader.push(new Uint8Array(10_000).fill(0x61))
  for (let count = 0; count < 2000; count += 1) reader.push(Buffer.from(`\ncaisson: c${count}\n`))
  t.is(reader.codes.length, 256)
  t.true(reader.tail().length < 41 * 257)
})

test('the firmware’s first output is noticed', (t) => {
  t.false(new ConsoleReader(undefined).spoke)
  t.true(read('\x1b').spoke)
})

test('listeners hear of each chunk', (t) => {
  const reader = new ConsoleReader(undefined)
  let calls = 0
  reader.onProgress(() => {
    calls += 1
  })
  reader.push(Buffer.from('a'))
  reader.push(Buffer.from('b\n'))
  t.is(calls, 2)
})

test('no bytes make it throw or let a control character through', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const reader = new ConsoleReader(undefined)
      reader.push(bytes)
      t.regex(reader.tail(), /^[\x20-\x7e\n]*$/)
    }),
  )
})
