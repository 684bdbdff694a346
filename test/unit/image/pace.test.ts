import test from 'ava'
import { Pace } from '#image/pull/pace'

function scene(): { readonly pace: Pace; readonly batch: (bytes: number, waitMs: number, workMs: number) => boolean } {
  let now = 5000
  const pace = new Pace(1000, () => now)
  return {
    pace,
    batch: (bytes, waitMs, workMs) => {
      now += waitMs
      pace.came(bytes)
      now += workMs
      return pace.taken()
    },
  }
}

test('a reader that waits more than it works is told at the end of a stretch, not before', (t) => {
  const { batch } = scene()
  t.deepEqual([batch(400, 30, 10), batch(400, 30, 10), batch(400, 30, 10)], [false, false, true])
})

test('a reader that works more than it waits goes on as before', (t) => {
  const { batch } = scene()
  for (let round = 0; round < 20; round++) t.false(batch(400, 10, 30))
})

test('what was long ago does not count: each stretch is judged by itself', (t) => {
  const { batch } = scene()
  t.false(batch(1000, 10, 500))
  t.true(batch(1000, 30, 20))
})
