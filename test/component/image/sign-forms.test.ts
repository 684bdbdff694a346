/** Every form of signature that we make, through a real registry, and every form of key. */
import { execFile } from 'node:child_process'
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { generateSigningKey, signImage } from '#image/node/sign'
import { signImageBundle } from '#image/node/sign-bundle'
import { verifyImage } from '#image/node/verify'
import { parseSignaturePolicy } from '#image/policy/parse'
import { encryptSigningKey } from '../../fixtures/encrypted-key.ts'
import { pushLayers } from './fixtures/image.ts'
import { startRegistry, type TestRegistry } from './fixtures/registry.ts'
import { workspace } from './fixtures/workspace.ts'

const run = promisify(execFile)
const CLI = join(import.meta.dirname, '../../../cli/caisson.mjs')
const COSIGN = join(import.meta.dirname, '../../vectors/image-sign/image-rs/image-rs/test_data/signature/cosign')

interface Scene {
  readonly folder: string
  readonly registry: TestRegistry
  readonly reference: string
  readonly verify: (requirement: object) => ReturnType<typeof verifyImage>
}

async function scene(t: ExecutionContext): Promise<Scene> {
  const folder = await workspace(t)
  const registry = await startRegistry(t, join(folder, 'registry'))
  const { reference } = await pushLayers(registry, folder)
  const verify = (requirement: object) =>
    verifyImage({
      reference,
      registry: registry.client(),
      policy: parseSignaturePolicy(JSON.stringify({ default: [requirement] })),
      resolveKey: () => Promise.reject(new Error('no key by path')),
    })
  return { folder, registry, reference, verify }
}

const PREDICATE = {
  buildDefinition: {
    externalParameters: { workflow: { repository: 'https://git.example/shop/web' } },
    resolvedDependencies: [{ uri: 'git+https://git.example/shop/web@refs/tags/v1' }],
  },
  runDetails: { builder: { id: 'https://builder.example/v1' } },
}
const SLSA = 'https://slsa.dev/provenance/v1'

test('a bundle that refers to the image admits it, for the key that made it and no other', async (t) => {
  const { registry, reference, verify } = await scene(t)
  const [key, other] = [generateSigningKey(), generateSigningKey()]
  await t.throwsAsync(verify({ type: 'caissonBundle', keyData: key.publicPem }), { code: 'ERR_IMAGE_UNSIGNED' })
  await signImageBundle({ reference, registry: registry.client(), privatePem: key.privatePem })
  t.regex((await verify({ type: 'caissonBundle', keyData: key.publicPem })).signers.join(), /^key sha256:/)
  await t.throwsAsync(verify({ type: 'caissonBundle', keyData: other.publicPem }), { code: 'ERR_IMAGE_BUNDLE' })
  // A second signer does not take the first one's place, in a registry that keeps no list of referrers itself.
  await signImageBundle({ reference, registry: registry.client(), privatePem: other.privatePem })
  const both = [key, other].map(({ publicPem }) => ({ type: 'caissonBundle', keyData: publicPem }))
  t.is((await verify({ type: 'caissonThreshold', count: 2, of: both })).signers.length, 2)
})

test('an attestation is held to its kind, its builder and its source', async (t) => {
  const { registry, reference, verify } = await scene(t)
  const key = generateSigningKey()
  const predicate = { type: SLSA, value: PREDICATE }
  await signImageBundle({ reference, registry: registry.client(), privatePem: key.privatePem, predicate })
  const demand = (more: object) => verify({ type: 'caissonBundle', keyData: key.publicPem, ...more })
  const provenance = { predicateTypes: [SLSA] }
  await t.notThrowsAsync(demand(provenance))
  await t.notThrowsAsync(
    demand({
      ...provenance,
      builders: ['https://other.example', 'https://builder.example/v1'],
      sources: ['https://git.example/shop/web'],
    }),
  )
  for (const more of [
    {},
    { predicateTypes: ['https://spdx.dev/Document'] },
    { ...provenance, builders: ['https://builder.example/v2'] },
    { ...provenance, sources: ['https://git.example/shop'] },
  ]) {
    await t.throwsAsync(demand(more), { code: 'ERR_IMAGE_ATTESTATION' })
  }
})

test('a bundle copied to another image is about that other image no more', async (t) => {
  const { folder, registry, reference, verify } = await scene(t)
  const key = generateSigningKey()
  const other = await pushLayers(registry, folder, { name: 'team/app', config: { Cmd: ['/bin/false'] } })
  const client = registry.client()
  const { referrer } = await signImageBundle({
    reference: other.reference,
    registry: client,
    privatePem: key.privatePem,
  })
  // Whoever writes to the repository can make the same bundle refer to this image.
  const { parseReference, withDigest } = await import('#protocol/oci/reference')
  const { uploadManifest } = await import('#image/node/upload')
  const repository = parseReference(reference)
  const manifest = JSON.parse(
    new TextDecoder().decode((await client.fetchManifest(withDigest(repository, referrer))).bytes),
  )
  const [, digest = ''] = reference.split('@')
  manifest.subject.digest = digest
  const mediaType = 'application/vnd.oci.image.manifest.v1+json'
  const bytes = new TextEncoder().encode(JSON.stringify(manifest))
  const { computeDigest } = await import('#protocol/oci/digest')
  const forged = computeDigest(client.crypto, bytes)
  await uploadManifest({ registry: client, repository }, { bytes, mediaType, version: forged })
  const index = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [{ mediaType, digest: forged, size: bytes.length, artifactType: manifest.artifactType }],
  }
  await uploadManifest(
    { registry: client, repository },
    {
      bytes: new TextEncoder().encode(JSON.stringify(index)),
      mediaType: index.mediaType,
      version: digest.replace(':', '-'),
    },
  )
  await t.throwsAsync(verify({ type: 'caissonBundle', keyData: key.publicPem }), {
    code: 'ERR_IMAGE_BUNDLE',
    message: /about something else/,
  })
})

test('keys that are encrypted as cosign does it, now and formerly, sign with their password', async (t) => {
  const { folder, registry, reference, verify } = await scene(t)
  const path = (name: string): string => join(folder, name)
  const own = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const ownPublic = String(own.publicKey.export({ type: 'spki', format: 'pem' }))
  await writeFile(path('own.key'), encryptSigningKey(own.privateKey, 'correct horse'))
  await writeFile(path('password'), 'correct horse\n')
  await writeFile(path('empty'), '')
  const options = ['--ca', registry.caFile, '--add-host', 'registry.test:127.0.0.1']
  const sign = (...words: readonly string[]) =>
    run(process.execPath, [CLI, 'image', 'sign', reference, ...options, ...words])
  const cosignPublic = await readFile(join(COSIGN, 'cosign2.pub'), 'utf8')
  await sign('--key', join(COSIGN, 'cosign2.key'), '--password', path('empty'))
  await t.notThrowsAsync(verify({ type: 'sigstoreSigned', keyData: cosignPublic }))
  await sign('--key', path('own.key'), '--password', path('password'), '--form', 'bundle')
  await t.notThrowsAsync(verify({ type: 'caissonBundle', keyData: ownPublic }))
  for (const words of [[], ['--password', path('empty')]]) {
    const error = await t.throwsAsync<Error & { stderr: string }>(sign('--key', path('own.key'), ...words), { code: 1 })
    t.true(error?.stderr.includes('ERR_SIGNING_KEY_PASSWORD'))
  }
})

test('keys of every accepted kind sign, and the policy accepts their signatures', async (t) => {
  const { registry, reference, verify } = await scene(t)
  const pems = [
    generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey,
    generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey,
    generateKeyPairSync('ed25519').privateKey,
  ].map((key) => String(key.export({ type: 'pkcs8', format: 'pem' })))
  for (const privatePem of pems) {
    const keyData = String(createPublicKey(createPrivateKey(privatePem)).export({ type: 'spki', format: 'pem' }))
    await signImage({ reference, registry: registry.client(), privatePem })
    await t.notThrowsAsync(verify({ type: 'sigstoreSigned', keyData }))
  }
})
