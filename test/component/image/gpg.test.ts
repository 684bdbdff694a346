/** OpenPGP signatures that Debian's gpg makes, judged by us and by Debian's skopeo in the same run. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { lookasideFiles } from '#image/node/lookaside-files'
import { verifyFolder, verifyImage } from '#image/node/verify'
import { parseSignaturePolicy } from '#image/policy/parse'
import { parseRegistriesD } from '#image/signature/registries-d'
import { CaissonError } from '#protocol/errors'
import { UndiciTransport } from '#protocol/node/http'
import { writeImageLayout } from '#tools/nginx-image/layout'
import { pushLayers, THREE_LAYERS } from './fixtures/image.ts'
import { startRegistry } from './fixtures/registry.ts'
import { workspace } from './fixtures/workspace.ts'

const run = promisify(execFile)
const REFERENCE = 'registry.example/team/app:1'

interface Signer {
  readonly folder: string
  readonly gpg: (...args: readonly string[]) => Promise<{ stdout: string }>
}

async function signer(t: ExecutionContext): Promise<Signer> {
  const folder = await workspace(t)
  const home = join(folder, 'gnupg')
  await mkdir(home, { mode: 0o700 })
  const env = { ...process.env, GNUPGHOME: home }
  t.teardown(async () => {
    await run('gpgconf', ['--kill', 'all'], { env })
  })
  return {
    folder,
    gpg: (...args) =>
      run('gpg', ['--batch', '--yes', '--pinentry-mode', 'loopback', '--passphrase', '', ...args], { env }),
  }
}

/** A folder as skopeo writes it, without signatures yet. */
async function image({ folder }: Signer): Promise<{ path: string; digest: string }> {
  const layout = join(folder, 'layout')
  writeImageLayout(layout, { layers: THREE_LAYERS.slice(0, 1), config: {} })
  const path = join(folder, 'image')
  await run('skopeo', ['--insecure-policy', 'copy', '--preserve-digests', `oci:${layout}`, `dir:${path}`])
  const manifest = await readFile(join(path, 'manifest.json'))
  return { path, digest: `sha256:${createHash('sha256').update(manifest).digest('hex')}` }
}

async function sign(
  { folder, gpg }: Signer,
  { digest, key, to, more = [] }: { digest: string; key: string; to: string; more?: readonly string[] },
): Promise<void> {
  const payload = {
    critical: {
      type: 'atomic container signature',
      image: { 'docker-manifest-digest': digest },
      identity: { 'docker-reference': REFERENCE },
    },
    optional: { creator: 'test', timestamp: 1_700_000_000 },
  }
  await writeFile(join(folder, 'payload'), JSON.stringify(payload))
  await gpg(...more, '--local-user', key, '--output', to, '--sign', join(folder, 'payload'))
}

async function policyFile({ folder }: Signer, keyring: string): Promise<string> {
  const signedIdentity = { type: 'exactReference', dockerReference: REFERENCE }
  const policy = { default: [{ type: 'signedBy', keyType: 'GPGKeys', keyPath: keyring, signedIdentity }] }
  await writeFile(join(folder, 'policy.json'), JSON.stringify(policy))
  return join(folder, 'policy.json')
}

async function ourVerdict(path: string, policy: string): Promise<void> {
  await verifyFolder({
    folder: path,
    reference: undefined,
    policy: parseSignaturePolicy(await readFile(policy, 'utf8')),
    resolveKey: async (file) => new Uint8Array(await readFile(file)),
  })
}

function theirVerdict({ folder }: Signer, path: string, policy: string): Promise<boolean> {
  const copy = ['--policy', policy, 'copy', '--remove-signatures', `dir:${path}`, `dir:${join(folder, 'copied')}`]
  return run('skopeo', copy).then(
    () => true,
    () => false,
  )
}

/** Both verdicts, which must agree. */
async function verdict(t: ExecutionContext, here: Signer, path: string, keyring: string): Promise<boolean> {
  const policy = await policyFile(here, keyring)
  const ours = await ourVerdict(path, policy).then(
    () => true,
    (error: unknown) => {
      if (error instanceof CaissonError && error.code.startsWith('ERR_IMAGE_')) return false
      throw error
    },
  )
  const theirs = await theirVerdict(here, path, policy)
  t.is(ours, theirs, `we say ${ours}, skopeo says ${theirs}`)
  return ours
}

const ALGORITHMS = [
  'rsa2048',
  'rsa3072',
  'nistp256',
  'nistp384',
  'nistp521',
  'ed25519',
  'brainpoolP256r1',
  'brainpoolP384r1',
  'brainpoolP512r1',
  'secp256k1',
]

test('keys of every algorithm sign, armored and binary keyrings serve, and another key does not', async (t) => {
  const here = await signer(t)
  const { path, digest } = await image(here)
  await here.gpg('--quick-generate-key', 'other@example.com', 'ed25519', 'sign', 'never')
  await here.gpg('--armor', '--output', join(here.folder, 'other.asc'), '--export', 'other@example.com')
  for (const algorithm of ALGORITHMS) {
    const name = `${algorithm}@example.com`
    await here.gpg('--quick-generate-key', name, algorithm, 'sign', 'never')
    await here.gpg('--armor', '--output', join(here.folder, 'key.asc'), '--export', name)
    await here.gpg('--output', join(here.folder, 'key.gpg'), '--export', name)
    await sign(here, { digest, key: name, to: join(path, 'signature-1') })
    t.true(await verdict(t, here, path, join(here.folder, 'key.asc')), algorithm)
    t.true(await verdict(t, here, path, join(here.folder, 'key.gpg')), algorithm)
    t.false(await verdict(t, here, path, join(here.folder, 'other.asc')), algorithm)
  }
})

test('a DSA key signs for skopeo and not for us, and the refusal names DSA', async (t) => {
  const here = await signer(t)
  const { path, digest } = await image(here)
  const keyring = join(here.folder, 'key.gpg')
  await here.gpg('--quick-generate-key', 'dsa@example.com', 'dsa2048', 'sign', 'never')
  await here.gpg('--output', keyring, '--export', 'dsa@example.com')
  await sign(here, { digest, key: 'dsa@example.com', to: join(path, 'signature-1') })
  t.is(await theirVerdict(here, path, await policyFile(here, keyring)), true)
  const ours = ourVerdict(path, await policyFile(here, keyring))
  await t.throwsAsync(ours, { code: 'ERR_IMAGE_SIGNATURE', message: /dsa keys are considered too weak/i })
})

test('a revoked key and an expired key sign no more, whatever they signed before', async (t) => {
  const here = await signer(t)
  const { path, digest } = await image(here)
  const keyring = join(here.folder, 'key.gpg')
  const exportKey = (name: string) => here.gpg('--output', keyring, '--export', name)

  await here.gpg('--quick-generate-key', 'gone@example.com', 'ed25519', 'sign', 'never')
  await sign(here, { digest, key: 'gone@example.com', to: join(path, 'signature-1') })
  await exportKey('gone@example.com')
  t.true(await verdict(t, here, path, keyring))
  const { stdout } = await here.gpg('--with-colons', '--list-keys', 'gone@example.com')
  const [, fingerprint = ''] = /^fpr:+([0-9A-F]{40}):/m.exec(stdout) ?? []
  // gpg keeps a certificate ready, with a colon before it so that nobody imports it by accident.
  const kept = join(here.folder, 'gnupg/openpgp-revocs.d', `${fingerprint}.rev`)
  await writeFile(join(here.folder, 'revoke.asc'), (await readFile(kept, 'utf8')).replace(/^:(?=-----BEGIN)/m, ''))
  await here.gpg('--import', join(here.folder, 'revoke.asc'))
  await exportKey('gone@example.com')
  t.false(await verdict(t, here, path, keyring))

  const then = ['--faked-system-time', '20200101T000000']
  await here.gpg(...then, '--quick-generate-key', 'old@example.com', 'ed25519', 'sign', '1m')
  await sign(here, { digest, key: 'old@example.com', to: join(path, 'signature-1'), more: then })
  await exportKey('old@example.com')
  t.false(await verdict(t, here, path, keyring))
})

test('an expired signature, a changed manifest, two signatures in one file and a detached one are refused', async (t) => {
  const here = await signer(t)
  const { path, digest } = await image(here)
  const then = ['--faked-system-time', '20240101T000000']
  await here.gpg(...then, '--quick-generate-key', 'a@example.com', 'ed25519', 'sign', 'never')
  await here.gpg(...then, '--quick-generate-key', 'b@example.com', 'ed25519', 'sign', 'never')
  const keyring = join(here.folder, 'key.gpg')
  await here.gpg('--output', keyring, '--export', 'a@example.com', 'b@example.com')
  const to = join(path, 'signature-1')

  await sign(here, { digest, key: 'a@example.com', to, more: then })
  t.true(await verdict(t, here, path, keyring))
  await sign(here, { digest, key: 'a@example.com', to, more: [...then, '--default-sig-expire', '1d'] })
  t.false(await verdict(t, here, path, keyring))
  await sign(here, { digest, key: 'a@example.com', to, more: ['--local-user', 'b@example.com'] })
  t.false(await verdict(t, here, path, keyring))
  await sign(here, { digest: digest.replace(/.$/, (last) => (last === '0' ? '1' : '0')), key: 'a@example.com', to })
  t.false(await verdict(t, here, path, keyring))
  await here.gpg('--output', to, '--detach-sign', join(here.folder, 'payload'))
  t.false(await verdict(t, here, path, keyring))
  await sign(here, { digest, key: 'a@example.com', to })
  t.true(await verdict(t, here, path, keyring))
})

test('a signing sub-key counts as its key, until it expires', async (t) => {
  const here = await signer(t)
  const { path, digest } = await image(here)
  const then = ['--faked-system-time', '20240101T000000']
  await here.gpg(...then, '--quick-generate-key', 'sub@example.com', 'ed25519', 'cert', 'never')
  const { stdout } = await here.gpg('--with-colons', '--list-keys', 'sub@example.com')
  const [, fingerprint = ''] = /^fpr:+([0-9A-F]{40}):/m.exec(stdout) ?? []
  const keyring = join(here.folder, 'key.gpg')
  // Debian's skopeo is older than this rule, so the verdict is ours alone.
  const signedIdentity = { type: 'exactReference', dockerReference: REFERENCE }
  const judge = async (expiry: string, when: readonly string[]) => {
    await here.gpg(...when, '--quick-add-key', fingerprint, 'ed25519', 'sign', expiry)
    await here.gpg('--output', keyring, '--export', 'sub@example.com')
    await sign(here, { digest, key: 'sub@example.com', to: join(path, 'signature-1'), more: when })
    return await verifyFolder({
      folder: path,
      reference: undefined,
      policy: parseSignaturePolicy(
        JSON.stringify({ default: [{ type: 'signedBy', keyType: 'GPGKeys', keyPath: keyring, signedIdentity }] }),
      ),
      resolveKey: async (file) => new Uint8Array(await readFile(file)),
    })
  }
  await t.throwsAsync(judge('1m', then), { code: 'ERR_IMAGE_SIGNATURE', message: /expired/ })
  t.deepEqual((await judge('never', [])).signers, [`OpenPGP key ${fingerprint}`])
})

test('signatures of a registry’s image come from the lookaside that registries.d names', async (t) => {
  const here = await signer(t)
  const registry = await startRegistry(t, join(here.folder, 'registry'))
  const pushed = await pushLayers(registry, here.folder)
  await here.gpg('--quick-generate-key', 'joe@example.com', 'ed25519', 'sign', 'never')
  const keyData = Buffer.from((await here.gpg('--armor', '--export', 'joe@example.com')).stdout).toString('base64')
  const storage = join(here.folder, 'lookaside')
  const folder = join(storage, `team/app@${pushed.digest.replace(':', '=')}`)
  await mkdir(folder, { recursive: true })
  await sign(here, { digest: pushed.digest, key: 'joe@example.com', to: join(folder, 'signature-1') })
  const rule = { type: 'signedBy', keyType: 'GPGKeys', keyData }
  const exact = { ...rule, signedIdentity: { type: 'exactReference', dockerReference: REFERENCE } }
  const http = new UndiciTransport({ caPem: [] })
  t.teardown(() => http.close())
  const verify = (text: string, requirement: object) =>
    verifyImage({
      reference: pushed.reference,
      registry: registry.client(),
      policy: parseSignaturePolicy(JSON.stringify({ default: [requirement] })),
      resolveKey: () => Promise.reject(new Error('no key by path')),
      lookaside: lookasideFiles(parseRegistriesD([{ name: 'test.yaml', text }]), http),
    })
  const near = `docker:\n  ${registry.host}:\n    lookaside: file://${storage}\n`
  t.regex((await verify(near, exact)).signers.join(), /^OpenPGP key [0-9A-F]{40}$/)
  await t.throwsAsync(verify(near, rule), { code: 'ERR_IMAGE_IDENTITY' })
  const elsewhere = `docker:\n  ${registry.host}/other:\n    lookaside: file://${storage}\n`
  await t.throwsAsync(verify(elsewhere, exact), { code: 'ERR_IMAGE_UNSIGNED' })
  await cp(join(folder, 'signature-1'), join(folder, 'signature-2'))
  await t.notThrowsAsync(verify(`default-docker:\n  lookaside: file://${storage}\n`, exact))
})
