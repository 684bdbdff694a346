/** Encrypted images both ways between this and skopeo, for every kind of recipient that skopeo knows. */
import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { copyFile, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { decryptLayout, encryptLayout } from '#image/node/crypt-layout'
import { OciLayout } from '#image/node/layout'
import { keyFileUnwrappers, recipientsWrapper } from '#image/node/recipients'
import { type LayerSource, writeImageLayout } from '#tools/nginx-image/layout'
import { directory, file, filler, THREE_LAYERS } from './fixtures/image.ts'
import { workspace } from './fixtures/workspace.ts'

const run = promisify(execFile)
const CLI = join(import.meta.dirname, '../../../cli/caisson.mjs')
const PACKET_KEY = 'kbs:///default/image-key/web'

const GZIP_LAYERS: readonly LayerSource[] = [
  { compression: 'gzip', entries: [directory('etc'), file('etc/name', 'base'), file('big', filler(3_000_000))] },
  { compression: 'gzip', entries: [directory('etc'), file('etc/name', 'top')] },
]

interface Site {
  readonly folder: string
  readonly path: (name: string) => string
  readonly plain: string
  /** Layer digests of the plain image, base first. All are gzip, for skopeo compresses what is not. */
  readonly layers: readonly string[]
  readonly env: NodeJS.ProcessEnv
}

async function site(t: ExecutionContext): Promise<Site> {
  const folder = await workspace(t)
  const path = (name: string): string => join(folder, name)
  const plain = path('plain')
  writeImageLayout(plain, { layers: GZIP_LAYERS, config: { Cmd: ['/bin/true'] } })
  const openssl = (...args: readonly string[]) => run('openssl', args)
  await openssl('genrsa', '-out', path('rsa.pem'), '2048')
  await openssl('rsa', '-in', path('rsa.pem'), '-pubout', '-out', path('rsa.pub'))
  await openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', path('ec.pem'))
  await openssl('ec', '-in', path('ec.pem'), '-pubout', '-out', path('ec.pub'))
  await openssl('req', '-x509', '-key', path('rsa.pem'), '-subj', '/CN=test', '-days', '30', '-out', path('cert.pem'))
  await openssl('genrsa', '-out', path('other.pem'), '2048')
  await writeFile(path('packet.key'), randomBytes(32))
  return { folder, path, plain, layers: await layerDigests(plain), env: { ...process.env, GNUPGHOME: path('gnupg') } }
}

async function layerDigests(folder: string): Promise<readonly string[]> {
  const { document } = await new OciLayout(folder).image()
  return document.kind === 'manifest' ? document.layers.map(({ digest }) => digest) : []
}

async function mediaTypes(folder: string): Promise<readonly string[]> {
  const { document } = await new OciLayout(folder).image()
  return document.kind === 'manifest' ? document.layers.map(({ mediaType }) => mediaType) : []
}

const copy = (env: NodeJS.ProcessEnv, ...args: readonly string[]) =>
  run('skopeo', ['--insecure-policy', 'copy', ...args], { env })

async function openPgpKey({ path, env }: Site): Promise<void> {
  await mkdir(path('gnupg'), { mode: 0o700 })
  const gpg = (...args: readonly string[]) => run('gpg', ['--batch', '--passphrase', '', ...args], { env })
  await gpg('--quick-generate-key', 'joe@example.com', 'default', 'default', 'never')
  await writeFile(path('pgp.pub'), (await gpg('--armor', '--export', 'joe@example.com')).stdout)
  await gpg('--output', path('pgp.key'), '--export-secret-keys', 'joe@example.com')
}

interface Recipient {
  readonly title: string
  readonly ours: (path: Site['path']) => string
  readonly theirs: (path: Site['path']) => string
  /** Files that open it, for us and for skopeo. */
  readonly key: string
  readonly theirKey: (path: Site['path']) => string
}

const RECIPIENTS: readonly Recipient[] = [
  {
    title: 'JWE for an RSA key',
    ours: (path) => `jwe:${path('rsa.pub')}`,
    theirs: (path) => `jwe:${path('rsa.pub')}`,
    key: 'rsa.pem',
    theirKey: (path) => path('rsa.pem'),
  },
  {
    title: 'JWE for an EC key',
    ours: (path) => `jwe:${path('ec.pub')}`,
    theirs: (path) => `jwe:${path('ec.pub')}`,
    key: 'ec.pem',
    theirKey: (path) => path('ec.pem'),
  },
  {
    title: 'PKCS#7 for a certificate',
    ours: (path) => `pkcs7:${path('cert.pem')}`,
    theirs: (path) => `pkcs7:${path('cert.pem')}`,
    key: 'rsa.pem',
    theirKey: (path) => path('rsa.pem'),
  },
  {
    title: 'OpenPGP',
    ours: (path) => `pgp:${path('pgp.pub')}`,
    theirs: () => 'pgp:joe@example.com',
    key: 'pgp.key',
    theirKey: (path) => path('pgp.key'),
  },
]

for (const recipient of RECIPIENTS) {
  test(`${recipient.title}: skopeo decrypts what we encrypt, and we decrypt what skopeo encrypts`, async (t) => {
    const here = await site(t)
    const { path, plain, layers, env } = here
    if (recipient.title === 'OpenPGP') await openPgpKey(here)

    await encryptLayout({ source: plain, target: path('ours'), wrap: recipientsWrapper([recipient.ours(path)]) })
    t.true((await mediaTypes(path('ours'))).every((type) => type.endsWith('+encrypted')))
    t.notDeepEqual(await layerDigests(path('ours')), layers)
    // skopeo wants the certificate again to open a PKCS#7 envelope.
    const theirKeys = [recipient.theirKey(path), ...(recipient.title.startsWith('PKCS') ? [path('cert.pem')] : [])]
    const decryption = theirKeys.flatMap((key) => ['--decryption-key', key])
    await copy(env, ...decryption, `oci:${path('ours')}`, `oci:${path('opened')}:1`)
    t.deepEqual(await layerDigests(path('opened')), layers)

    const encryption = ['--encryption-key', recipient.theirs(path)]
    await copy(env, ...encryption, `oci:${plain}`, `oci:${path('theirs')}:1`)
    t.true((await mediaTypes(path('theirs'))).every((type) => type.endsWith('+encrypted')))
    const unwrappers = keyFileUnwrappers([{ path: path(recipient.key) }])
    await decryptLayout({ source: path('theirs'), target: path('back'), unwrappers })
    t.deepEqual(await layerDigests(path('back')), layers)
  })
}

test('a key of the verifier opens an image by the name that the image asks for, and no other key does', async (t) => {
  const { path, plain, layers } = await site(t)
  const cli = (...words: readonly string[]) => run(process.execPath, [CLI, 'image', ...words])
  const recipient = `provider:attestation-agent:keyid=${PACKET_KEY}::keypath=${path('packet.key')}`
  await cli('encrypt', plain, path('sealed'), '--recipient', recipient)
  const open = (uri: string, file: string) =>
    cli('decrypt', path('sealed'), path('opened'), '--provider-key', `${uri}=${path(file)}`)
  await writeFile(path('wrong.key'), randomBytes(32))
  for (const [uri, file, code, exit] of [
    [PACKET_KEY, 'wrong.key', 'ERR_LAYER_KEY', 1],
    ['kbs:///default/image-key/other', 'packet.key', 'ERR_LAYER_KEY_NONE', 3],
  ] as const) {
    const error = await t.throwsAsync<Error & { stderr: string }>(open(uri, file), { code: exit })
    t.true(error?.stderr.includes(`${code}:`))
  }
  await open(PACKET_KEY, 'packet.key')
  t.deepEqual(await layerDigests(path('opened')), layers)
})

test('an image for several recipients opens for each of them, and for nobody else', async (t) => {
  const here = await site(t)
  const { path, plain, layers, env } = here
  const all = [`jwe:${path('rsa.pub')}`, `jwe:${path('ec.pub')}`]
  await encryptLayout({ source: plain, target: path('sealed'), wrap: recipientsWrapper(all) })
  for (const key of ['rsa.pem', 'ec.pem']) {
    await decryptLayout({
      source: path('sealed'),
      target: path(`by-${key}`),
      unwrappers: keyFileUnwrappers([{ path: path(key) }]),
    })
    t.deepEqual(await layerDigests(path(`by-${key}`)), layers)
    await copy(env, '--decryption-key', path(key), `oci:${path('sealed')}`, `oci:${path(`skopeo-${key}`)}:1`)
    t.deepEqual(await layerDigests(path(`skopeo-${key}`)), layers)
  }
  const other = {
    source: path('sealed'),
    target: path('never'),
    unwrappers: keyFileUnwrappers([{ path: path('other.pem') }]),
  }
  await t.throwsAsync(decryptLayout(other), { code: 'ERR_LAYER_KEY' })
  t.false((await readdir(here.folder)).some((name) => name.startsWith('never')))
})

test('layers that skopeo compressed while it encrypted them decrypt to what the image’s diff ids say', async (t) => {
  const { path, env } = await site(t)
  const [gzip, , none] = THREE_LAYERS
  writeImageLayout(path('mixed'), { layers: [gzip, none].filter((layer) => layer !== undefined), config: {} })
  await copy(env, '--encryption-key', `jwe:${path('rsa.pub')}`, `oci:${path('mixed')}`, `oci:${path('theirs')}:1`)
  const unwrappers = keyFileUnwrappers([{ path: path('rsa.pem') }])
  await decryptLayout({ source: path('theirs'), target: path('back'), unwrappers })
  // skopeo checks each layer against its diff id while it unpacks them into another form.
  await copy(env, `oci:${path('back')}`, `docker-archive:${path('back.tar')}`)
  t.true((await readFile(path('back.tar'))).length > 3_000_000)
})

test('a layer changed after it was encrypted is never shown, whatever its digest says', async (t) => {
  const here = await site(t)
  const { path, plain } = here
  await encryptLayout({ source: plain, target: path('sealed'), wrap: recipientsWrapper([`jwe:${path('rsa.pub')}`]) })
  // Whoever changes the blob can change manifest and index along: only the HMAC is out of reach.
  const blob = (digest: string): string => join(path('sealed'), 'blobs/sha256', digest.replace('sha256:', ''))
  const store = async (bytes: Uint8Array): Promise<{ digest: string; size: number }> => {
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
    await writeFile(blob(digest), bytes)
    return { digest, size: bytes.length }
  }
  const { descriptor, bytes } = await new OciLayout(path('sealed')).image()
  const manifest = JSON.parse(new TextDecoder().decode(bytes))
  const changed = await readFile(blob(manifest.layers[1].digest))
  changed[changed.length >> 1] = (changed[changed.length >> 1] ?? 0) ^ 1
  Object.assign(manifest.layers[1], await store(changed))
  const index = JSON.parse(await readFile(join(path('sealed'), 'index.json'), 'utf8'))
  Object.assign(index.manifests[0], await store(Buffer.from(JSON.stringify(manifest))))
  t.not(index.manifests[0].digest, descriptor.digest)
  await writeFile(join(path('sealed'), 'index.json'), JSON.stringify(index))

  const decrypting = decryptLayout({
    source: path('sealed'),
    target: path('opened'),
    unwrappers: keyFileUnwrappers([{ path: path('rsa.pem') }]),
  })
  await t.throwsAsync(decrypting, { code: 'ERR_LAYER_HMAC' })
  t.false((await readdir(here.folder)).some((name) => name.startsWith('opened')))
})

test('every image of an index is encrypted and decrypted, and what is no file system stays as it is', async (t) => {
  const { path, layers, plain } = await site(t)
  const other = path('other')
  writeImageLayout(other, { layers: GZIP_LAYERS.slice(0, 1), config: {} })
  const blobs = (folder: string): string => join(folder, 'blobs/sha256')
  for (const name of await readdir(blobs(other))) await copyFile(join(blobs(other), name), join(blobs(plain), name))
  const store = async (value: object): Promise<{ digest: string; size: number }> => {
    const bytes = Buffer.from(JSON.stringify(value))
    const hex = createHash('sha256').update(bytes).digest('hex')
    await writeFile(join(blobs(plain), hex), bytes)
    return { digest: `sha256:${hex}`, size: bytes.length }
  }
  const only = async (folder: string) => (await new OciLayout(folder).image()).descriptor
  const mediaType = 'application/vnd.oci.image.manifest.v1+json'
  const statement = await store({ _type: 'https://in-toto.io/Statement/v1' })
  const attestation = await store({
    schemaVersion: 2,
    mediaType,
    config: { mediaType: 'application/vnd.oci.empty.v1+json', ...(await store({})) },
    layers: [{ mediaType: 'application/vnd.in-toto+json', ...statement }],
  })
  const images = await Promise.all([only(plain), only(other)])
  const entries = images.map(({ digest, size }, index) => {
    return { mediaType, digest, size, platform: { os: 'linux', architecture: ['amd64', 'arm64'][index] } }
  })
  const indexType = 'application/vnd.oci.image.index.v1+json'
  const index = await store({
    schemaVersion: 2,
    mediaType: indexType,
    manifests: [...entries, { mediaType, ...attestation, platform: { os: 'unknown', architecture: 'unknown' } }],
  })
  await writeFile(
    join(plain, 'index.json'),
    JSON.stringify({ schemaVersion: 2, mediaType: indexType, manifests: [{ mediaType: indexType, ...index }] }),
  )

  const wrap = recipientsWrapper([`jwe:${path('rsa.pub')}`])
  t.is((await encryptLayout({ source: plain, target: path('sealed'), wrap })).layers, layers.length + 1)
  const sealed = await readdir(blobs(path('sealed')))
  t.true(sealed.includes(statement.digest.slice(7)))
  t.false(layers.some((digest) => sealed.includes(digest.slice(7))))
  const unwrappers = keyFileUnwrappers([{ path: path('rsa.pem') }])
  await decryptLayout({ source: path('sealed'), target: path('back'), unwrappers })
  const { document } = await new OciLayout(path('back')).image()
  const back = document.kind === 'index' ? document.manifests.map(({ digest }) => digest) : []
  // Manifests are written anew, so their spelling may differ; the layers are the same.
  t.is(back.length, 3)
  const restored = await readdir(blobs(path('back')))
  t.true(layers.every((digest) => restored.includes(digest.slice(7))))
})
