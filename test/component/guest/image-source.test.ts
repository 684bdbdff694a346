/** Images as the guest keeps them: a real registry, engine and indexer, and a scratch disk that is soon full. */
import { execFileSync } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { ImageSource } from '#guest/agent/image-source'
import { nodeFiles } from '#guest/platform/node/files'
import { nodeProcesses } from '#guest/platform/node/processes'
import { nodeStorage } from '#guest/platform/node/storage'
import { nodeLayerCipher } from '#image/node/layer-cipher'
import { generateSigningKey, signImage } from '#image/node/sign'
import type { PullProgress } from '#image/pull/progress'
import type { UnavailableError } from '#protocol/errors'
import type { HttpTransport } from '#protocol/http-transport'
import type { PullBounds } from '#protocol/initdata'
import { nodeCrypto } from '#protocol/node/crypto'
import { UndiciTransport } from '#protocol/node/http'
import type { LayerSource } from '#tools/nginx-image/layout'
import { buildNative } from '../../../native/build.mjs'
import { ACCEPT_ANYTHING, file, filler, pushLayers } from '../image/fixtures/image.ts'
import { startRegistry } from '../image/fixtures/registry.ts'
import { filesIn, nativeEngine, workspace } from '../image/fixtures/workspace.ts'

const MIB = 1024 * 1024
const SCRATCH_MIB = 20
const silent = (): void => undefined

/** A layer that takes as much room as it has in the registry. */
function plain(name: string, mib: number): LayerSource {
  return { compression: 'none', entries: [file(name, filler(mib * MIB))] }
}

/** @param answers layers are sent when it says so */
async function setUp(t: ExecutionContext, pulls?: PullBounds, answers: Promise<void> = Promise.resolve()) {
  const { 'caisson-index': indexer } = await buildNative({ only: ['caisson-index', 'shared'] })
  const folder = await workspace(t)
  const registry = await startRegistry(t, join(folder, 'registry'))
  const scratch = join(folder, 'scratch')
  const indexFolder = join(folder, 'indexes')
  for (const path of [scratch, indexFolder]) await mkdir(path)
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${SCRATCH_MIB}m`, 'tmpfs', scratch])
  t.teardown(() => void execFileSync('umount', ['--lazy', scratch]))
  const client = new UndiciTransport({ caPem: [registry.caPem], hosts: { 'registry.test': '127.0.0.1' } })
  t.teardown(() => client.close())
  const blobs: string[] = []
  const resources = new Map<string, string>()
  const http: HttpTransport = {
    request: async (request) => {
      const [, blob] = /\/blobs\/(sha256:[0-9a-f]+)$/.exec(request.url) ?? []
      // The first is the configuration.
      if (blob !== undefined && blobs.push(blob) > 1) await answers
      return await client.request(request)
    },
    close: () => client.close(),
  }
  const images = new ImageSource({
    platform: { crypto: nodeCrypto, files: nodeFiles, processes: nodeProcesses, storage: nodeStorage(nodeFiles) },
    tools: { engine: nativeEngine, indexer: indexer ?? '', cipher: nodeLayerCipher },
    http,
    policy: ACCEPT_ANYTHING,
    credentials: undefined,
    lookaside: undefined,
    route: undefined,
    pulls,
    resource: async (path) => {
      const found = resources.get(path)
      if (found === undefined) throw new Error(`no resource ${path}`)
      return new TextEncoder().encode(found)
    },
    folder: scratch,
    indexFolder,
  })
  const push = async (name: string, ...layers: LayerSource[]): Promise<string> =>
    (await pushLayers(registry, folder, { layers, name })).reference
  /** Blobs asked for by `work`. */
  const asked = async (work: () => Promise<unknown>): Promise<number> => {
    blobs.length = 0
    await work()
    return blobs.length
  }
  return { images, push, asked, blobs, scratch, registry, resources }
}

test('an image that scratch cannot hold is refused before a layer is asked for, with the numbers', async (t) => {
  const { images, push, blobs, scratch } = await setUp(t)
  const reference = await push('large', plain('a', 12), plain('b', 13))
  const error = await t.throwsAsync<UnavailableError>(images.pull(reference, silent), { code: 'ERR_IMAGE_NO_ROOM' })
  const [, needed, layers, free] =
    /more than (\d+) bytes for (\d+) layers, (\d+) are free/.exec(error?.message ?? '') ?? []
  t.true(Number(needed) > 25 * MIB && layers === '2')
  t.true(Number(free) > 0 && Number(free) <= SCRATCH_MIB * MIB)
  // The configuration, and no layer.
  t.is(blobs.length, 1)
  t.deepEqual(await filesIn(scratch), [])
})

test('a guest has as many layers and connections at a time as its initdata says', async (t) => {
  for (const [pulls, atOnce] of [
    [{ layers: 6, connections: 6 }, 6],
    [{ layers: 6, connections: 2 }, 2],
    [{ layers: 1, connections: 6 }, 1],
  ] as const) {
    const { promise: answers, resolve: answer } = Promise.withResolvers<void>()
    const { images, push, blobs } = await setUp(t, pulls, answers)
    const names = ['a', 'b', 'c', 'd', 'e', 'f']
    const pulling = images.pull(await push('many', ...names.map((name) => plain(name, 1))), silent)
    while (blobs.length < 1 + atOnce) await new Promise((tick) => setTimeout(tick, 1))
    // Were there room for more, they would be asked for without waiting for anything.
    await new Promise((tick) => setTimeout(tick, 20))
    t.is(blobs.length, 1 + atOnce)
    answer()
    const { image, release } = await pulling
    t.is(image.layers.length, names.length)
    release()
  }
})

test('layers that are there are not fetched again, not even for another image', async (t) => {
  const { images, push, asked } = await setUp(t)
  const one = await push('one', plain('base', 1), plain('one', 1))
  const two = await push('two', plain('base', 1), plain('two', 1))
  t.is(await asked(() => images.pull(one, silent)), 3)
  t.is(await asked(() => images.pull(one, silent)), 0)
  const progress: PullProgress[] = []
  t.is(await asked(() => images.pull(two, (event) => progress.push(event))), 2)
  t.deepEqual(
    progress.flatMap((event) => (event.type === 'layer' && event.state !== 'fetching' ? [event.state] : [])).sort(),
    ['done', 'present'],
  )
})

test('images that no container uses go when room is needed; those in use stay', async (t) => {
  const { images, push, asked, scratch } = await setUp(t)
  const [used, idle, next] = [
    await push('used', plain('shared', 2), plain('used', 2)),
    await push('idle', plain('shared', 2), plain('idle', 8)),
    await push('next', plain('next', 9)),
  ]
  const held = await images.pull(used, silent)
  const { release } = await images.pull(idle, silent)
  t.is((await filesIn(scratch)).length, 3)
  release()
  t.is((await filesIn(scratch)).length, 3, 'what has room stays for the next one')
  const other = await images.pull(next, silent)
  const kept = held.image.layers.map(({ tar }) => tar.path.slice(scratch.length + 1))
  t.is((await filesIn(scratch)).length, 3)
  t.true((await filesIn(scratch)).filter((name) => kept.includes(name)).length === 2)
  t.is(await asked(() => images.pull(used, silent)), 0)
  other.release()
  // Its configuration, and the layer that no other image has.
  t.is(await asked(() => images.pull(idle, silent)), 2)
})

test('a layer that turns out larger than its room takes that of images nobody uses', async (t) => {
  const { images, push } = await setUp(t)
  const { release } = await images.pull(await push('idle', plain('idle', 9)), silent)
  release()
  const zeros: LayerSource = { compression: 'gzip', entries: [file('zeros', new Uint8Array(13 * MIB))] }
  const { image } = await images.pull(await push('zeros', zeros), silent)
  t.true((image.layers[0]?.tarBytes ?? 0) > 13 * MIB)
})

test('an image that is fetched before anybody asked is fetched once; who asks meanwhile joins in', async (t) => {
  const { images, push, asked } = await setUp(t)
  const reference = await push('early', plain('a', 1), plain('b', 1))
  const progress: PullProgress[] = []
  const fetched = await asked(async () => {
    const early = images.prefetch([reference, reference], silent)
    await images.pull(reference, (event) => progress.push(event))
    await early
    await images.pull(reference, (event) => progress.push(event))
  })
  t.is(fetched, 3)
  t.is(progress.filter(({ type }) => type === 'resolved').length, 2)
  t.is(progress.filter((event) => event.type === 'layer' && event.state === 'done').length, 4)
})

test('an image that cannot be fetched early is told to who asks for it, and to nobody before', async (t) => {
  const { images, push, asked } = await setUp(t)
  const good = await push('good', plain('a', 1))
  const missing = good.replace('/good', '/missing')
  t.is(await asked(() => images.prefetch([missing, good], silent)), 2)
  await t.throwsAsync(images.pull(missing, silent), { code: 'ERR_IMAGE_NOT_FOUND' })
})

test('where the rule names signers, what one of them signed is pulled, under any tag, and nothing else', async (t) => {
  const { images, push, registry, resources, asked } = await setUp(t)
  const [release, stranger] = [generateSigningKey(), generateSigningKey()]
  resources.set('default/keys/release', release.publicPem)
  resources.set('default/keys/stranger', stranger.publicPem)
  const sign = (reference: string, { privatePem }: typeof release) =>
    signImage({ reference, registry: registry.client(), privatePem })
  const by = (key: string) => ({
    place: 'containers.app.signedBy',
    signers: [{ kind: 'key', resource: `default/keys/${key}` } as const],
  })
  const tag = `${registry.host}/app:1`
  const first = await push('app', plain('first', 1))
  await t.throwsAsync(images.pull(tag, silent, by('release')), {
    code: 'ERR_IMAGE_UNSIGNED',
    message: /containers\.app\.signedBy/,
  })
  await sign(first, stranger)
  const refused = images.pull(tag, silent, by('release'))
  await t.throwsAsync(refused, { code: 'ERR_IMAGE_SIGNATURE', message: /containers\.app\.signedBy/ })
  await sign(first, release)
  const { image } = await images.pull(tag, silent, by('release'))
  t.is(`${image.manifestDigest}`, first.split('@')[1] ?? '')
  t.is(await asked(() => images.pull(first, silent, by('release'))), 0, 'the same image by its digest')

  const inline = { place: 'x', signers: [{ kind: 'key-data', pem: release.publicPem } as const] }
  t.is((await images.pull(tag, silent, inline)).image.manifestDigest, image.manifestDigest)

  // The tag moves to an image that nobody signed; the one that is signed stays what it was.
  const second = await push('app', plain('second', 1))
  await t.throwsAsync(images.pull(tag, silent, by('release')), { code: 'ERR_IMAGE_UNSIGNED' })
  await t.notThrowsAsync(images.pull(first, silent, by('release')))
  await sign(second, stranger)
  const moved = await images.pull(tag, silent, by('stranger'))
  t.is(`${moved.image.manifestDigest}`, second.split('@')[1] ?? '')
  await t.throwsAsync(
    images.pull(tag, silent, by('release')),
    { code: 'ERR_IMAGE_SIGNATURE' },
    'kept for the other alone',
  )
})
