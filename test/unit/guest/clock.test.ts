import test from 'ava'
import { NodeClock } from '#guest/platform/node/clock'

test('the wall clock is set once to any time, and from then on only forwards', (t) => {
  let now = new Date('2031-01-01T00:00:00Z').getTime()
  const clock = new NodeClock({
    now: () => now,
    set: (ms) => {
      now = ms
    },
  })
  // The host had set it years ahead, to let expired certificates pass or to make ours look expired.
  clock.set(new Date('2026-11-21T05:00:00Z'))
  t.is(now, Date.parse('2026-11-21T05:00:00Z'))
  clock.set(new Date('2026-11-21T04:00:00Z'))
  t.is(clock.now().toISOString(), '2026-11-21T05:00:00.000Z')
  clock.set(new Date('2026-11-21T06:00:00Z'))
  t.is(clock.now().toISOString(), '2026-11-21T06:00:00.000Z')
})
