import test from 'ava'
import fc from 'fast-check'
import { OutputRing } from '#guest/agent/output-ring'
import { textOf } from './stream-pair.ts'

const bytes = (text: string) => new TextEncoder().encode(text)
const turn = () => new Promise((resolve) => setImmediate(resolve))

test('a reader that comes late gets what is kept, in the order it came', async (t) => {
  const ring = new OutputRing(1000, ['stdout', 'stderr'])
  await ring.push('stdout', bytes('a'))
  await ring.push('stderr', bytes('b'))
  await ring.push('stdout', bytes('c'))
  ring.end('stdout')
  ring.end('stderr')
  t.is(await textOf(ring.reader(['stdout', 'stderr'], true)), 'abc')
  t.is(await textOf(ring.reader(['stderr'], true)), 'b')
})

test('without readers the oldest output is dropped and the process never waits', async (t) => {
  const ring = new OutputRing(400, ['stdout'])
  for (let index = 0; index < 100; index++) await ring.push('stdout', bytes(`${index} `))
  ring.end('stdout')
  t.is(await textOf(ring.reader(['stdout'], true)), '95 96 97 98 99 ')
})

test('an attached reader loses nothing: the process waits until it has read', async (t) => {
  const ring = new OutputRing(200, ['stdout'])
  const reader = ring.reader(['stdout'], true)
  let pushed = 0
  const writing = (async () => {
    for (let index = 0; index < 50; index++) {
      await ring.push('stdout', bytes(`${index} `))
      pushed++
    }
    ring.end('stdout')
  })()
  await turn()
  t.true(pushed < 5)
  t.is(await textOf(reader), Array.from({ length: 50 }, (_, index) => `${index} `).join(''))
  await writing
})

test('a reader that closes lets the process go on', async (t) => {
  const ring = new OutputRing(200, ['stdout'])
  const reader = ring.reader(['stdout'], true)
  const writing = (async () => {
    for (let index = 0; index < 50; index++) await ring.push('stdout', bytes('xx'))
  })()
  await turn()
  reader.close()
  await writing
  t.is(await reader.read(), null)
})

test('a reader of one source is not held up by the other, and does not hold it', async (t) => {
  const ring = new OutputRing(200, ['stdout', 'stderr'])
  const reader = ring.reader(['stdout'], true)
  for (let index = 0; index < 50; index++) await ring.push('stderr', bytes('e'))
  await ring.push('stdout', bytes('o'))
  ring.end('stdout')
  t.is(await textOf(reader), 'o')
})

test('a reader that does not follow ends with what is there', async (t) => {
  const ring = new OutputRing(1000, ['stdout'])
  await ring.push('stdout', bytes('now'))
  const reader = ring.reader(['stdout'], false)
  await ring.push('stdout', bytes('later'))
  t.is(await textOf(reader), 'now')
})

test('any order of writing and reading gives a following reader every byte', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.string({ minLength: 1, maxLength: 40 }), { maxLength: 60 }),
      fc.nat(500),
      async (parts, size) => {
        const ring = new OutputRing(size, ['stdout'])
        const read = textOf(ring.reader(['stdout'], true))
        for (const part of parts) await ring.push('stdout', bytes(part))
        ring.end('stdout')
        return (await read) === parts.map((part) => new TextDecoder().decode(bytes(part))).join('')
      },
    ),
    { numRuns: 50 },
  )
  t.pass()
})
