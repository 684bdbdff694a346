import test from 'ava'
import { type Batch, BatchQueue } from '#image/pull/batch-queue'

function batches(released: number[]): (number: number) => Batch {
  return (number) => ({ bytes: new Uint8Array([number]), release: () => released.push(number) })
}

test('batches come out in order, and who fills them waits while one lies ready and nobody takes it', async (t) => {
  const queue = new BatchQueue()
  const batch = batches([])
  t.is(queue.put(batch(1)), undefined)
  const waiting = queue.put(batch(2))
  t.not(waiting, undefined)
  let free = false
  void waiting?.then(() => {
    free = true
  })
  await new Promise(setImmediate)
  t.false(free)
  const seen: (number | undefined)[] = []
  for await (const { bytes } of queue) {
    seen.push(bytes[0])
    if (seen.length === 1) {
      await new Promise(setImmediate)
      t.true(free)
      queue.end()
    }
  }
  t.deepEqual(seen, [1, 2])
})

test('an error comes after what came before it', async (t) => {
  const queue = new BatchQueue()
  void queue.put(batches([])(1))
  queue.end(new Error('cut'))
  const seen: (number | undefined)[] = []
  const taking = (async () => {
    for await (const { bytes } of queue) seen.push(bytes[0])
  })()
  await t.throwsAsync(taking, { message: 'cut' })
  t.deepEqual(seen, [1])
})

test('what nobody takes any more is released, also what comes afterwards', (t) => {
  const released: number[] = []
  const queue = new BatchQueue()
  const batch = batches(released)
  void queue.put(batch(1))
  queue.drop()
  t.is(queue.put(batch(2)), undefined)
  t.deepEqual(released, [1, 2])
})
