/** Encrypted images through a real registry, as the guest pulls them: with keys that somebody else has to release. */
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { decryptionSource } from '#image/encryption/decryption-source'
import { packetUnwrapper } from '#image/encryption/unwrap'
import { encryptLayout } from '#image/node/crypt-layout'
import { nodeLayerCipher } from '#image/node/layer-cipher'
import { pushImage } from '#image/node/push'
import { recipientsWrapper } from '#image/node/recipients'
import { generateSigningKey, signImage } from '#image/node/sign'
import { type PulledImage, pullImage } from '#image/pull/pull-image'
import { UnavailableError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import { writeImageLayout } from '#tools/nginx-image/layout'
import { ACCEPT_ANYTHING, signedBy, THREE_LAYERS } from './fixtures/image.ts'
import { testIndexer } from './fixtures/indexer.ts'
import { startRegistry, type TestRegistry } from './fixtures/registry.ts'
import { filesIn, layerStore, nativeEngine, workspace } from './fixtures/workspace.ts'

const KEY_ID = 'kbs:///default/image-key/web'

interface Scene {
  readonly registry: TestRegistry
  readonly reference: string
  readonly store: string
  /** Names of keys in the order they were asked for. */
  readonly asked: string[]
  readonly pull: (options?: { key?: Uint8Array; policy?: typeof ACCEPT_ANYTHING }) => Promise<PulledImage>
}

async function scene(t: ExecutionContext): Promise<Scene> {
  const folder = await workspace(t)
  const path = (name: string): string => join(folder, name)
  const registry = await startRegistry(t, path('registry'))
  const key = randomBytes(32)
  await writeFile(path('key'), key)
  writeImageLayout(path('plain'), { layers: THREE_LAYERS, config: { Cmd: ['/bin/true'] } })
  const recipient = `provider:attestation-agent:keyid=${KEY_ID}::keypath=${path('key')}`
  await encryptLayout({ source: path('plain'), target: path('sealed'), wrap: recipientsWrapper([recipient]) })
  const client = registry.client()
  const { reference } = await pushImage({
    layout: path('sealed'),
    reference: `${registry.host}/team/app:1`,
    registry: client,
  })
  await mkdir(path('store'))
  const asked: string[] = []
  const indexer = await testIndexer()
  return {
    registry,
    reference,
    store: path('store'),
    asked,
    pull: ({ key: given = key, policy = ACCEPT_ANYTHING } = {}) => {
      const keyOf = async (uri: string): Promise<Uint8Array> => {
        asked.push(uri)
        if (given.length > 0) return Uint8Array.from(given)
        throw new UnavailableError('ERR_RESOURCE_UNAVAILABLE', `${uri} is not released to this guest`)
      }
      return pullImage({
        reference,
        registry: client,
        signaturePolicy: policy,
        crypto: nodeCrypto,
        store: layerStore(path('store')),
        engine: nativeEngine,
        indexer,
        decryptionOf: decryptionSource([packetUnwrapper(nodeLayerCipher, keyOf)]),
      })
    },
  }
}

test('an encrypted image is pulled with the key it names, layers of every compression', async (t) => {
  const { pull, asked } = await scene(t)
  const image = await pull()
  t.deepEqual(new Set(asked), new Set([KEY_ID]))
  t.deepEqual(
    image.layers.map(({ diffId }) => diffId),
    [...image.config.diffIds],
  )
  t.true((await readFile(image.layers[0]?.tar.path ?? '')).includes('etc/name'))
})

test('a key is asked for only when the signature policy has admitted the image', async (t) => {
  const { registry, reference, pull, asked } = await scene(t)
  const signing = generateSigningKey()
  await t.throwsAsync(pull({ policy: signedBy(signing.publicPem) }), { code: 'ERR_IMAGE_UNSIGNED' })
  t.deepEqual(asked, [])
  await signImage({ reference, registry: registry.client(), privatePem: signing.privatePem })
  await t.notThrowsAsync(pull({ policy: signedBy(signing.publicPem) }))
})

test('without its key, or with another, an encrypted image leaves nothing behind', async (t) => {
  const { pull, store } = await scene(t)
  await t.throwsAsync(pull({ key: randomBytes(32) }), { code: 'ERR_LAYER_KEY' })
  await t.throwsAsync(pull({ key: new Uint8Array() }), { code: 'ERR_RESOURCE_UNAVAILABLE' })
  t.false((await filesIn(store)).some((name) => name.endsWith('.tar')))
})
