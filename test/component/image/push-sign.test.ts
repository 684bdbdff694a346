import { execFile } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { inspectImage } from '#image/node/inspect'
import { pushImage } from '#image/node/push'
import { generateSigningKey, publicKeyOf, signImage } from '#image/node/sign'
import { verifyImage } from '#image/node/verify'
import { parseSignaturePolicy } from '#image/policy/parse'
import { fromBase64 } from '#protocol/encoding'
import { parseReference } from '#protocol/oci/reference'
import { writeImageLayout } from '#tools/nginx-image/layout'
import { pushLayers, THREE_LAYERS } from './fixtures/image.ts'
import { startRegistry } from './fixtures/registry.ts'
import { workspace } from './fixtures/workspace.ts'

const run = promisify(execFile)

test('skopeo reads what is pushed, and we read what skopeo pushes', async (t) => {
  const folder = await workspace(t)
  const registry = await startRegistry(t, join(folder, 'registry'))
  const certificates = join(folder, 'certs')
  await mkdir(certificates)
  await writeFile(join(certificates, 'ca.crt'), registry.caPem)
  const layout = join(folder, 'layout')
  const digest: string = writeImageLayout(layout, { layers: THREE_LAYERS, config: { Cmd: ['/bin/true'] } })

  const ours = await pushImage({ layout, reference: `${registry.host}/ours:1`, registry: registry.client() })
  t.is<string, string>(ours.digest, digest)
  // skopeo asks DNS for names, so it goes by the address that the certificate names too.
  const address = `127.0.0.1:${registry.port}`
  await run('skopeo', [
    'copy',
    '--preserve-digests',
    '--src-cert-dir',
    certificates,
    `docker://${address}/ours:1`,
    `oci:${folder}/copied:1`,
  ])
  t.true((await readFile(join(folder, 'copied/index.json'), 'utf8')).includes(digest))

  await run('skopeo', [
    'copy',
    '--preserve-digests',
    '--dest-cert-dir',
    certificates,
    `oci:${layout}`,
    `docker://${address}/theirs:1`,
  ])
  const seen = await inspectImage({ reference: `${registry.host}/theirs:1`, registry: registry.client() })
  t.is<string, string>(seen.manifestDigest, digest)
  t.deepEqual(seen.config.cmd, ['/bin/true'])
  t.is(seen.layers.length, 3)
  t.is(seen.signatures, 0)
})

test('a second push sends no blob again', async (t) => {
  const folder = await workspace(t)
  const registry = await startRegistry(t, join(folder, 'registry'))
  const layout = join(folder, 'layout')
  writeImageLayout(layout, { layers: THREE_LAYERS, config: {} })
  const push = async (): Promise<readonly boolean[]> => {
    const sent: boolean[] = []
    const reference = `${registry.host}/again:1`
    await pushImage({ layout, reference, registry: registry.client(), onProgress: (blob) => sent.push(blob.sent) })
    return sent
  }
  t.deepEqual(await push(), [true, true, true, true])
  t.deepEqual(await push(), [false, false, false, false])
})

test('openssl verifies the signature over the payload, with the key that was made', async (t) => {
  const folder = await workspace(t)
  const registry = await startRegistry(t, join(folder, 'registry'))
  const pushed = await pushLayers(registry, folder)
  const key = generateSigningKey()
  t.is(publicKeyOf(key.privatePem), key.publicPem)
  const client = registry.client()
  const signed = await signImage({ reference: pushed.reference, registry: client, privatePem: key.privatePem })
  t.is(signed.signatureTag, `${pushed.digest.replace(':', '-')}.sig`)

  const tag = parseReference(`${registry.host}/team/app:${signed.signatureTag}`)
  const manifest = JSON.parse(new TextDecoder().decode((await client.fetchManifest(tag)).bytes))
  const [layer] = manifest.layers
  t.is(layer.mediaType, 'application/vnd.dev.cosign.simplesigning.v1+json')
  const payload = await client.fetchBlob(
    tag,
    { ...layer, annotations: new Map() },
    { maxBytes: 10_000, what: 'payload' },
  )
  t.deepEqual(JSON.parse(new TextDecoder().decode(payload)), {
    critical: {
      identity: { 'docker-reference': pushed.reference },
      image: { 'docker-manifest-digest': pushed.digest },
      type: 'cosign container image signature',
    },
    optional: null,
  })
  const path = (name: string): string => join(folder, name)
  await writeFile(path('payload'), payload)
  await writeFile(path('signature'), fromBase64(layer.annotations['dev.cosignproject.cosign/signature'], 'signature'))
  await writeFile(path('key.pub'), key.publicPem)
  const args = ['dgst', '-sha256', '-verify', path('key.pub'), '-signature', path('signature'), path('payload')]
  t.regex((await run('openssl', args)).stdout, /Verified OK/)
})

test('a signature that openssl made over a payload of its own is accepted', async (t) => {
  const folder = await workspace(t)
  const registry = await startRegistry(t, join(folder, 'registry'))
  const { digest, reference } = await pushLayers(registry, folder)
  const path = (name: string): string => join(folder, name)
  await run('openssl', ['ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', path('key')])
  await run('openssl', ['ec', '-in', path('key'), '-pubout', '-out', path('pub')])
  // Other member order and spacing than ours.
  const payload = `{ "optional": {"creator": "x"},
    "critical": {"type": "cosign container image signature", "image": {"docker-manifest-digest": "${digest}"},
    "identity": {"docker-reference": "${registry.host}/team/app"}} }`
  await writeFile(path('payload'), payload)
  await run('openssl', ['dgst', '-sha256', '-sign', path('key'), '-out', path('sig'), path('payload')])
  const { computeDigest } = await import('#protocol/oci/digest')
  const { nodeCrypto } = await import('#protocol/node/crypto')
  const { uploadBlob, uploadManifest } = await import('#image/node/upload')
  const client = registry.client()
  const target = { registry: client, repository: parseReference(reference) }
  const blob = async (bytes: Uint8Array): Promise<{ digest: string; size: number }> => {
    const descriptor = { digest: computeDigest(nodeCrypto, bytes), size: bytes.byteLength }
    await uploadBlob(target, { ...descriptor, read: () => bytes })
    return descriptor
  }
  const mediaType = 'application/vnd.oci.image.manifest.v1+json'
  const manifest = {
    schemaVersion: 2,
    mediaType,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...(await blob(new TextEncoder().encode('{}'))) },
    layers: [
      {
        mediaType: 'application/vnd.dev.cosign.simplesigning.v1+json',
        ...(await blob(new TextEncoder().encode(payload))),
        annotations: { 'dev.cosignproject.cosign/signature': (await readFile(path('sig'))).toString('base64') },
      },
    ],
  }
  const bytes = new TextEncoder().encode(JSON.stringify(manifest))
  await uploadManifest(target, { bytes, mediaType, version: `${digest.replace(':', '-')}.sig` })

  const keyPath = 'kbs:///default/cosign-public-key/test'
  const policy = parseSignaturePolicy(
    JSON.stringify({ default: [{ type: 'sigstoreSigned', keyPath, signedIdentity: { type: 'matchRepository' } }] }),
  )
  const resolveKey = async (asked: string): Promise<string> => {
    t.is(asked, keyPath)
    return await readFile(path('pub'), 'utf8')
  }
  const verified = await verifyImage({ reference, registry: client, policy, resolveKey })
  t.deepEqual(verified.requirements, ['sigstoreSigned'])
  t.is(verified.manifestDigest, digest)
})

test('a registry with user names: right credentials work, wrong and missing ones are told apart from absence', async (t) => {
  const folder = await workspace(t)
  const htpasswd = join(folder, 'htpasswd')
  const { stdout } = await run('python3', ['-W', 'ignore', '-c', BCRYPT])
  await writeFile(htpasswd, `user:${stdout.trim()}\n`)
  const registry = await startRegistry(t, join(folder, 'registry'), { htpasswd })
  const layout = join(folder, 'layout')
  writeImageLayout(layout, { layers: THREE_LAYERS, config: {} })
  const reference = `${registry.host}/private:1`
  const as = (password: string) => registry.client({ credentials: () => ({ username: 'user', password }) })
  await pushImage({ layout, reference, registry: as('secret: with colon') })
  await t.notThrowsAsync(inspectImage({ reference, registry: as('secret: with colon') }))
  await t.throwsAsync(inspectImage({ reference, registry: as('wrong') }), { code: 'ERR_REGISTRY_UNAUTHORIZED' })
  await t.throwsAsync(inspectImage({ reference, registry: registry.client() }), { code: 'ERR_REGISTRY_UNAUTHORIZED' })
  const absent = inspectImage({ reference: `${registry.host}/absent:1`, registry: as('secret: with colon') })
  await t.throwsAsync(absent, { code: 'ERR_IMAGE_NOT_FOUND' })
})

/** docker-registry takes bcrypt only; crypt(3) of Debian can make it. */
const BCRYPT = `import crypt; print(crypt.crypt('secret: with colon', '$2b$05$abcdefghijklmnopqrstuu'))`
