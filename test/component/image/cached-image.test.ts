import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { parseSignaturePolicy } from '#image/policy/parse'
import { pullImage } from '#image/pull/pull-image'
import { nodeCrypto } from '#protocol/node/crypto'
import { pushLayers } from './fixtures/image.ts'
import { testIndexer } from './fixtures/indexer.ts'
import { startRegistry } from './fixtures/registry.ts'
import { layerStore, nativeEngine, workspace } from './fixtures/workspace.ts'

test('an image whose layers are all there is judged again for every reference', async (t) => {
  const folder = await workspace(t)
  const registry = await startRegistry(t, join(folder, 'registry'))
  const [admitted, rejected] = [
    await pushLayers(registry, folder, { name: 'team/admitted' }),
    await pushLayers(registry, folder, { name: 'team/rejected' }),
  ]
  t.is(admitted.digest, rejected.digest)
  await mkdir(join(folder, 'store'))
  const docker = { [`${registry.host}/team/admitted`]: [{ type: 'insecureAcceptAnything' }] }
  const policy = parseSignaturePolicy(JSON.stringify({ default: [{ type: 'reject' }], transports: { docker } }))
  const options = {
    registry: registry.client(),
    signaturePolicy: policy,
    crypto: nodeCrypto,
    store: layerStore(join(folder, 'store')),
    engine: nativeEngine,
    indexer: await testIndexer(),
  }
  await t.notThrowsAsync(pullImage({ ...options, reference: admitted.reference }))
  await t.throwsAsync(pullImage({ ...options, reference: rejected.reference }), { code: 'ERR_IMAGE_REJECTED' })
  await t.notThrowsAsync(pullImage({ ...options, reference: admitted.reference }))
})
