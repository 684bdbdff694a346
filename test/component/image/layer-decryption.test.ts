import { createCipheriv, createHash, createHmac, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import test from 'ava'
import type { LayerDecryption } from '#image/layer/engine'
import { encodeTar } from '#tools/nginx-image/tar'
import { buildNative } from '../../../native/build.mjs'
import { directory, file, filler } from './fixtures/image.ts'
import { storeLayer } from './fixtures/stored.ts'
import { workspace } from './fixtures/workspace.ts'

const TAR = encodeTar([directory('d'), file('d/a', filler(2_000_000)), file('b', 'content')])
const DIFF_ID = `sha256:${createHash('sha256').update(TAR).digest('hex')}`

test.before(async () => {
  await buildNative({ only: ['shared', 'caisson-index'] })
})

/** As ocicrypt does: one AES-256-CTR stream, and HMAC-SHA256 with the same key over what comes out. */
function encrypt(plain: Uint8Array): { bytes: Buffer; decryption: LayerDecryption } {
  const [key, nonce] = [randomBytes(32), randomBytes(16)]
  const cipher = createCipheriv('aes-256-ctr', key, nonce)
  const bytes = Buffer.concat([cipher.update(plain), cipher.final()])
  return { bytes, decryption: { key, nonce, hmac: createHmac('sha256', key).update(bytes).digest() } }
}

for (const compression of ['none', 'gzip'] as const) {
  const plain = compression === 'gzip' ? gzipSync(TAR) : TAR

  test(`an encrypted layer (${compression}) is what it was before encryption`, async (t) => {
    const folder = await workspace(t)
    const { bytes, decryption } = encrypt(plain)
    const layer = await storeLayer(folder, 'layer', bytes, { compression, decryption })
    t.is<string, string>(layer.diffId, DIFF_ID)
    t.true(readFileSync(join(folder, 'layer.tar')).subarray(0, 2_000_000).equals(TAR.subarray(0, 2_000_000)))
  })

  test(`an encrypted layer (${compression}) changed anywhere, or opened with another key, is refused as a whole`, async (t) => {
    const folder = await workspace(t)
    const { bytes, decryption } = encrypt(plain)
    const flipped = (at: number): Buffer => {
      const copy = Buffer.from(bytes)
      copy[at] = (copy[at] ?? 0) ^ 1
      return copy
    }
    // The last bytes are padding of the tar, or of no consequence to inflate: only the code notices them.
    const last = flipped(bytes.byteLength - (compression === 'gzip' ? 4 : 10))
    const store = (name: string, content: Buffer, more: Partial<LayerDecryption>) =>
      storeLayer(folder, name, content, { compression, decryption: { ...decryption, ...more } })
    await t.throwsAsync(store('last', last, {}), compression === 'none' ? { code: 'ERR_LAYER_HMAC' } : undefined)
    await t.throwsAsync(store('first', flipped(0), {}))
    await t.throwsAsync(store('key', bytes, { key: randomBytes(32) }))
    await t.throwsAsync(store('code', bytes, { hmac: randomBytes(32) }), { code: 'ERR_LAYER_HMAC' })
  })
}

test('a key, nonce or code of another length is refused before anything is read', async (t) => {
  const folder = await workspace(t)
  const { bytes, decryption } = encrypt(TAR)
  for (const change of [{ key: randomBytes(16) }, { nonce: randomBytes(12) }, { hmac: randomBytes(20) }]) {
    await t.throwsAsync(storeLayer(folder, 'x', bytes, { decryption: { ...decryption, ...change } }), {
      instanceOf: RangeError,
    })
  }
})
