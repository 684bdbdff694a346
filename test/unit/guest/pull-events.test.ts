import test from 'ava'
import { EventLog } from '#guest/agent/events'
import { pullEvents } from '#guest/agent/pull-events'
import { SharedProgress } from '#guest/agent/shared-progress'
import type { PullProgress } from '#image/pull/progress'
import { EventKind } from '#protocol/gen/agent_pb'
import { FakeClock } from './fake-platform.ts'

const DIGEST = `sha256:${'a'.repeat(64)}` as const
const RESOLVED: PullProgress = { type: 'resolved', manifestDigest: DIGEST, layers: 2, compressedBytes: 30 }

function layer(number: number, state: 'fetching' | 'done', fetchedBytes = 10): PullProgress {
  return { type: 'layer', layer: number, digest: DIGEST, state, fetchedBytes, compressedBytes: 15, tarBytes: 0 }
}

function setUp() {
  const clock = new FakeClock()
  const events = new EventLog(() => clock.monotonicMs())
  const report = pullEvents(events, 'web', clock)
  const told = async (count: number) => {
    const stop = new AbortController()
    const seen = []
    for await (const event of events.watch(0n, stop.signal)) {
      seen.push(event)
      if (seen.length === count) break
    }
    return seen
  }
  return { clock, report, told }
}

test('a pull that waits or tries again is an event with its code, its layer and the time until then', async (t) => {
  const { clock, report, told } = setUp()
  report(RESOLVED)
  report({ type: 'trouble', layer: 1, code: 'ERR_HTTP_CUT', why: 'the connection to host x ended', retryInMs: 210.4 })
  clock.advance(1000)
  report({ type: 'trouble', layer: undefined, code: 'ERR_REGISTRY_STATUS', why: '429', retryInMs: 5000 })
  const [, cut, busy] = await told(3)
  t.like(cut, { kind: EventKind.PULL_TROUBLE, containerId: 'web', errorCode: 'ERR_HTTP_CUT', layer: 1, layers: 2 })
  t.is(cut?.retryInMs, 211)
  t.like(busy, { kind: EventKind.PULL_TROUBLE, errorCode: 'ERR_REGISTRY_STATUS', retryInMs: 5000 })
  t.false(JSON.stringify([cut, busy], (_, value) => (typeof value === 'bigint' ? 0 : value)).includes('host x'))
})

test('a registry that fails without end does not wash older events away', async (t) => {
  const { clock, report, told } = setUp()
  report(RESOLVED)
  for (let tries = 0; tries < 1000; tries++) {
    report({ type: 'trouble', layer: 0, code: 'ERR_HTTP_CUT', why: 'cut', retryInMs: 1 })
    if (tries % 100 === 0) clock.advance(200)
  }
  report(layer(0, 'done'))
  report(layer(1, 'done'))
  const kinds = (await told(15)).map(({ kind }) => kind)
  t.is(kinds[0], EventKind.PULL_MANIFEST)
  t.is(kinds.at(-1), EventKind.PULL_DONE)
})

test('who joins a pull late is told first what was reached, once each', (t) => {
  const shared = new SharedProgress()
  shared.report(RESOLVED)
  shared.report(layer(0, 'fetching', 5))
  shared.report({ type: 'trouble', layer: 0, code: 'ERR_HTTP_CUT', why: 'cut', retryInMs: 1 })
  shared.report(layer(0, 'fetching', 10))
  const seen: PullProgress[] = []
  const leave = shared.join((progress) => seen.push(progress))
  shared.report(layer(0, 'done', 15))
  leave()
  shared.report(layer(1, 'done', 15))
  t.deepEqual(seen, [RESOLVED, layer(0, 'fetching', 10), layer(0, 'done', 15)])
})
