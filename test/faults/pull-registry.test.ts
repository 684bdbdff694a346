/** Pulls from a real registry behind a proxy that misbehaves: each ends verified and complete, or failed, clean and explained. */
import test from 'ava'
import { CaissonError } from '#protocol/errors'
import type { Fault, ProxiedRequest } from '#test/component/image/fixtures/fault-proxy'
import { type FaultyScene, faultyScene, sent } from '#test/component/image/fixtures/faulty-scene'
import { file, filler } from '#test/component/image/fixtures/image'

/** Large enough for several connections: 46 ranges of half a megabyte. */
const LARGE = [{ compression: 'none', entries: [file('large', filler(24_000_000))] }] as const
const SMALL = [{ compression: 'gzip', entries: [file('small', filler(6_000_000))] }] as const
/** What buffers of the kernel and the client may hold when a connection breaks, per connection. */
const SLACK = 3_000_000

type Choose = (request: ProxiedRequest, blob: { digest: string; size: number }) => Fault | undefined

interface Case {
  readonly title: string
  readonly layers: typeof LARGE | typeof SMALL
  readonly choose: Choose
  /** Codes it may end with; none: it ends verified and complete. */
  readonly code?: RegExp
  /** What must have been told on the way. */
  readonly told?: RegExp
  /** Times the blob's size that may go out; 1 with slack by default. */
  readonly times?: number
  readonly connections?: number
}

const once =
  (fault: Fault): Choose =>
  ({ number }) =>
    number === 0 ? fault : undefined
const always =
  (fault: Fault): Choose =>
  () =>
    fault
/** Every other answer, so that ranges of one blob meet both. */
const everyOther = (fault: Fault): Choose => {
  let count = 0
  return () => (count++ % 2 === 0 ? fault : undefined)
}

const CASES: readonly Case[] = [
  {
    title: 'a reset at the first byte',
    layers: SMALL,
    choose: once({ kind: 'reset', after: 0 }),
    told: /ERR_HTTP_CUT/,
  },
  {
    title: 'a reset in the middle',
    layers: SMALL,
    choose: once({ kind: 'reset', after: 2_000_000 }),
    told: /ERR_HTTP_CUT/,
  },
  {
    title: 'resets of every other range',
    layers: LARGE,
    choose: everyOther({ kind: 'reset', after: 400_000 }),
    told: /ERR_HTTP_CUT/,
  },
  {
    title: 'resets of every answer, each a little later',
    layers: LARGE,
    choose: always({ kind: 'reset', after: 4_000_000 }),
    connections: 1,
    told: /ERR_HTTP_CUT/,
    times: 3,
  },
  {
    title: 'resets before every byte',
    layers: SMALL,
    choose: always({ kind: 'reset', after: 0 }),
    code: /^ERR_HTTP_CUT$/,
    told: /ERR_HTTP_CUT/,
  },
  {
    title: 'an answer that stalls',
    layers: SMALL,
    choose: once({ kind: 'stall', after: 1_000_000 }),
    told: /ERR_HTTP_STALLED/,
  },
  {
    title: 'a range that stalls',
    layers: LARGE,
    choose: ({ range, number }) =>
      number === 0 && /^bytes=4194304-/.test(range ?? '') ? { kind: 'stall', after: 100 } : undefined,
  },
  {
    title: 'answers that all stall',
    layers: SMALL,
    choose: always({ kind: 'stall', after: 0 }),
    code: /^ERR_HTTP_STALLED$/,
  },
  {
    title: 'an answer cut short without a length',
    layers: SMALL,
    choose: once({ kind: 'truncate', after: 3_000_000 }),
    told: /ERR_BLOB_SHORT/,
  },
  {
    title: 'every range cut short',
    layers: LARGE,
    choose: everyOther({ kind: 'truncate', after: 500_000 }),
    told: /ERR_BLOB_SHORT/,
  },
  {
    title: 'ranges that are ignored',
    layers: LARGE,
    choose: always({ kind: 'ignore-range' }),
    told: /ERR_REGISTRY_RANGE/,
    times: 3,
  },
  {
    title: 'ranges that are ignored after a cut',
    layers: SMALL,
    choose: ({ number }) => (number === 0 ? { kind: 'truncate', after: 2_000_000 } : { kind: 'ignore-range' }),
    times: 2,
    told: /ERR_BLOB_SHORT/,
  },
  {
    title: 'other ranges than those asked for',
    layers: LARGE,
    choose: always({ kind: 'shift-range', by: -100 }),
    told: /ERR_REGISTRY_RANGE/,
    times: 3,
  },
  {
    title: 'another range after a cut',
    layers: SMALL,
    choose: ({ number }) =>
      number === 0
        ? { kind: 'truncate', after: 2_000_000 }
        : number === 1
          ? { kind: 'shift-range', by: -7 }
          : undefined,
    times: 2,
    told: /ERR_REGISTRY_RANGE/,
  },
  {
    title: 'a changed byte in the first block',
    layers: SMALL,
    choose: always({ kind: 'corrupt', at: 300 }),
    code: /^ERR_(?:DIGEST_MISMATCH|LAYER_CORRUPT)$/,
  },
  {
    title: 'a changed byte in the middle',
    layers: LARGE,
    choose: always({ kind: 'corrupt', at: 12_000_000 }),
    code: /^ERR_DIGEST_MISMATCH$/,
    times: 2,
  },
  {
    title: 'a changed byte in the last block',
    layers: LARGE,
    choose: (_, { size }) => ({ kind: 'corrupt', at: size - 1 }),
    code: /^ERR_DIGEST_MISMATCH$/,
    times: 2,
  },
  {
    title: 'a byte that changes once, in one range of many',
    layers: LARGE,
    choose: ({ range, number }) =>
      number < 46 && range === 'bytes=8912896-9437183' ? { kind: 'corrupt', at: 9_000_000 } : undefined,
    told: /ERR_DIGEST_MISMATCH/,
    times: 2,
  },
  {
    title: 'a password that is not known between two ranges',
    layers: LARGE,
    choose: ({ number }) =>
      number === 3 ? { kind: 'status', status: 401, headers: { 'www-authenticate': 'Basic realm="r"' } } : undefined,
    code: /^ERR_REGISTRY_UNAUTHORIZED$/,
  },
  {
    title: '429 with a time',
    layers: SMALL,
    choose: ({ number }) => (number < 2 ? { kind: 'status', status: 429, headers: { 'retry-after': '1' } } : undefined),
    told: /ERR_REGISTRY_STATUS/,
  },
  {
    title: '429 with a time beyond all patience',
    layers: SMALL,
    choose: always({ kind: 'status', status: 429, headers: { 'retry-after': '3000' } }),
    code: /^ERR_REGISTRY_STATUS$/,
  },
  {
    title: '500, 502, 503 and 504 in turn',
    layers: SMALL,
    choose: ({ number }) => (number < 4 ? { kind: 'status', status: [500, 502, 503, 504][number] ?? 500 } : undefined),
    told: /ERR_REGISTRY_STATUS/,
  },
  {
    title: '503 for ever',
    layers: SMALL,
    choose: always({ kind: 'status', status: 503 }),
    code: /^ERR_REGISTRY_STATUS$/,
  },
  {
    title: '404 in the middle',
    layers: LARGE,
    choose: ({ number }) => (number > 4 ? { kind: 'status', status: 404 } : undefined),
    code: /^ERR_REGISTRY_STATUS$/,
  },
  {
    title: 'redirects in a circle',
    layers: SMALL,
    choose: always({ kind: 'status', status: 307, headers: { location: '/v2/team/app/blobs/again' } }),
    code: /^ERR_REGISTRY_STATUS$/,
  },
  {
    title: 'a redirect to another host',
    layers: SMALL,
    choose: always({ kind: 'status', status: 307, headers: { location: 'https://elsewhere.example/blob' } }),
    code: /^ERR_REGISTRY_REDIRECT$/,
  },
  {
    title: 'a few bytes a second',
    layers: SMALL,
    choose: always({ kind: 'slow', bytesPerSecond: 100 }),
    code: /^ERR_REGISTRY_SLOW$/,
    told: /ERR_REGISTRY_SLOW/,
  },
  {
    title: 'a few bytes a second, once',
    layers: SMALL,
    choose: once({ kind: 'slow', bytesPerSecond: 100 }),
    code: /^ERR_REGISTRY_SLOW$/,
    told: /ERR_REGISTRY_SLOW/,
  },
  {
    title: 'a body without end',
    layers: SMALL,
    choose: always({ kind: 'endless' }),
    code: /^ERR_BLOB_SIZE$/,
    times: 2,
  },
]

for (const { title, layers, choose, code, told, times = 1, connections = 4 } of CASES) {
  test(`a pull through ${title} ${code === undefined ? 'is complete' : 'fails, clean and explained'}`, async (t) => {
    const scene = await faultyScene(t, layers, choose)
    const before = performance.now()
    if (code === undefined) {
      const { index } = await scene.pull({ connections, parallelLayers: 1, spread: 'at-once' })
      t.deepEqual(index.devices, [0])
    } else {
      const error = await t.throwsAsync(scene.pull({ connections, parallelLayers: 1, spread: 'at-once' }), {
        instanceOf: CaissonError,
      })
      t.regex(error?.code ?? '', code)
      t.deepEqual(await scene.left(), [])
    }
    explained(t.log, scene, before)
    if (told !== undefined) t.regex(scene.troubles.map((trouble) => trouble.code).join(' '), told)
    t.true(sent(scene) <= times * scene.blob.size + connections * SLACK, `${sent(scene)} of ${scene.blob.size}`)
  })
}

function explained(log: (text: string) => void, scene: FaultyScene, beforeMs: number): void {
  const seconds = ((performance.now() - beforeMs) / 1000).toFixed(1)
  log(`${seconds} s, ${sent(scene)} bytes for ${scene.blob.size}, ${scene.troubles.length} troubles told`)
}

test('a pull from a registry that is killed and started again costs only the missing bytes', async (t) => {
  let restarted: Promise<void> | undefined
  const scene: FaultyScene = await faultyScene(t, LARGE, ({ number }) => {
    if (number === 9) restarted = scene.registry.restart(1000)
    return undefined
  })
  const { index } = await scene.pull({ parallelLayers: 1, noProgressMs: 60_000, spread: 'at-once' })
  t.deepEqual(index.devices, [0])
  t.not(restarted, undefined)
  await restarted
  t.regex(scene.troubles.map(({ code }) => code).join(' '), /ERR_HTTP_CUT/)
  t.true(sent(scene) <= scene.blob.size + 4 * SLACK, `${sent(scene)} of ${scene.blob.size}`)
})

test('a pull whose token expires between two ranges fetches another, waits for a token server that fails, and is complete', async (t) => {
  let expired: string | undefined
  const scene: FaultyScene = await faultyScene(
    t,
    LARGE,
    ({ number, authorization }) => {
      if (number === 5) {
        expired = authorization
        if (scene.tokens !== undefined) scene.tokens.failing = 2
      }
      if (expired === undefined || authorization !== expired) return undefined
      return { kind: 'status', status: 401, headers: { 'www-authenticate': scene.tokens?.challenge ?? '' } }
    },
    { withTokens: true },
  )
  const { index } = await scene.pull({ parallelLayers: 1, noProgressMs: 60_000, spread: 'at-once' })
  t.deepEqual(index.devices, [0])
  t.regex(expired ?? '', /^Bearer /)
  t.regex(scene.troubles.map(({ code }) => code).join(' '), /ERR_REGISTRY_STATUS/)
  t.true(sent(scene) <= scene.blob.size + 4 * SLACK, `${sent(scene)} of ${scene.blob.size}`)
})
