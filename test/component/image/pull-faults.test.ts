import test from 'ava'
import { CaissonError } from '#protocol/errors'
import { faultyScene, sent } from './fixtures/faulty-scene.ts'
import { file, filler } from './fixtures/image.ts'

const BIG = [{ compression: 'none', entries: [file('big', filler(6_000_000))] }] as const
/** What a kernel's buffers may hold of a connection that is reset, and the client never sees. */
const SLACK = 3_000_000

test('a connection that breaks within a layer costs only the bytes that are missing', async (t) => {
  const scene = await faultyScene(t, BIG, ({ number }) =>
    number < 2 ? { kind: 'truncate', after: 2_000_000 } : undefined,
  )
  const image = await scene.pull()
  t.is(image.layers.length, 1)
  t.is(sent(scene), scene.blob.size)
  t.deepEqual(
    scene.proxy.blobs.filter(({ path }) => path.endsWith(scene.blob.digest)).map(({ range }) => range),
    [undefined, `bytes=2000000-${scene.blob.size - 1}`, `bytes=4000000-${scene.blob.size - 1}`],
  )
  t.deepEqual(
    scene.troubles.map(({ code, layer }) => [code, layer]),
    [
      ['ERR_BLOB_SHORT', 0],
      ['ERR_BLOB_SHORT', 0],
    ],
  )
})

test('a connection that is reset is taken up where it broke', async (t) => {
  const scene = await faultyScene(t, BIG, ({ number }) =>
    number === 0 ? { kind: 'reset', after: 3_000_000 } : undefined,
  )
  await t.notThrowsAsync(scene.pull())
  t.true(sent(scene) <= scene.blob.size + SLACK)
  t.is(scene.troubles[0]?.code, 'ERR_HTTP_CUT')
})

test('a byte changed on the way is refused, wherever it is, and nothing of the layer stays', async (t) => {
  for (const part of [0, 0.5, 1]) {
    const scene = await faultyScene(t, BIG, (_, { size }) => ({
      kind: 'corrupt',
      at: Math.floor((size - 3000) * part) + 1000,
    }))
    const error = await t.throwsAsync(scene.pull(), { instanceOf: CaissonError }, `${part}`)
    t.regex(error?.code ?? '', /^ERR_(?:DIGEST_MISMATCH|LAYER_ENTRY)$/)
    t.deepEqual(await scene.left(), [])
  }
})

test('a registry that fails once is asked again after the time it names', async (t) => {
  const headers = { 'retry-after': '1' }
  const scene = await faultyScene(t, BIG, ({ number }) =>
    number === 0 ? { kind: 'status', status: 429, headers } : undefined,
  )
  const before = performance.now()
  await t.notThrowsAsync(scene.pull())
  t.true(performance.now() - before >= 1000)
  t.deepEqual(
    scene.troubles.map(({ code, retryInMs }) => [code, retryInMs >= 1000]),
    [['ERR_REGISTRY_STATUS', true]],
  )
})

test('a cancelled pull stops while it waits for a registry that is away', async (t) => {
  const scene = await faultyScene(t, BIG, () => ({ kind: 'status', status: 503, headers: { 'retry-after': '5' } }))
  const abort = new AbortController()
  const reason = new Error('not wanted any more')
  const onProgress = (): void => void (scene.proxy.blobs.length > 1 && setImmediate(() => abort.abort(reason)))
  const before = performance.now()
  t.is(await t.throwsAsync(scene.pull({ signal: abort.signal, onProgress })), reason)
  t.true(performance.now() - before < 4000)
  t.deepEqual(await scene.left(), [])
})

/** Large enough for several connections after the first one was tried. */
const LARGE = [{ compression: 'none', entries: [file('large', filler(24_000_000))] }] as const

test('a large layer takes more connections as soon as one does not keep the pull busy, and loses nothing by it', async (t) => {
  const scene = await faultyScene(t, LARGE, () => ({ kind: 'slow', bytesPerSecond: 3_000_000 }))
  await t.notThrowsAsync(scene.pull({ connections: 4, parallelLayers: 1 }))
  const ranges = scene.proxy.blobs.filter(({ path }) => path.endsWith(scene.blob.digest)).map(({ range }) => range)
  t.is(ranges[0], undefined)
  t.true(ranges.length > 10, `${ranges.length}`)
  t.true(sent(scene) <= scene.blob.size + SLACK, `${sent(scene)} of ${scene.blob.size}`)
  t.deepEqual(scene.troubles, [])
})
