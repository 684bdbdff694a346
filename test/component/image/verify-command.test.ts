/** `caisson image verify` from outside: exit codes, and what it says. */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { workspace } from './fixtures/workspace.ts'

const ROOT = join(import.meta.dirname, '../../..')
const SIGN = join(ROOT, 'test/vectors/image-sign')
const FIXTURES = join(SIGN, 'containers-image/signature/fixtures')

function verify(...words: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  const args = [join(ROOT, 'cli/caisson.mjs'), 'image', 'verify', ...words]
  return spawnSync(process.execPath, args, { encoding: 'utf8' })
}

test('0 says which requirement accepted and who signed, 1 why not, 2 what is not understood, 3 what is not there', async (t) => {
  const folder = await workspace(t)
  const policy = join(folder, 'policy.json')
  const keyPath = join(FIXTURES, 'public-key.gpg')
  const rule = { type: 'signedBy', keyType: 'GPGKeys', keyPath }
  const write = (document: unknown): void => writeFileSync(policy, JSON.stringify(document))
  const scope = { 'docker.io/testing': [{ ...rule, signedIdentity: { type: 'matchExact' } }] }
  write({ default: [{ type: 'reject' }], transports: { docker: scope } })
  const as = ['--policy', policy, '--as', 'testing/manifest:latest']

  const yes = verify(join(FIXTURES, 'dir-img-valid'), ...as)
  t.is(yes.status, 0, yes.stderr)
  t.regex(
    yes.stdout,
    /^accepted sha256:[0-9a-f]{64} by docker\["docker\.io\/testing"\]: signedBy\nsigned by OpenPGP key [0-9A-F]{40}\n$/,
  )
  const json = verify(`dir:${join(FIXTURES, 'dir-img-valid')}`, ...as, '--json')
  t.is(JSON.parse(json.stdout).place, 'docker["docker.io/testing"]')
  t.deepEqual(JSON.parse(json.stdout).requirements, ['signedBy'])

  const no = verify(join(FIXTURES, 'dir-img-unsigned'), ...as)
  t.is(no.status, 1)
  t.true(no.stderr.includes('ERR_IMAGE_UNSIGNED: docker.io/testing/manifest:latest: has no signature'))
  t.is(verify(join(FIXTURES, 'dir-img-modified-manifest'), ...as).status, 1)
  // Without a name it is an image of the transport `dir`, for which this policy has the default alone.
  t.true(verify(join(FIXTURES, 'dir-img-valid'), '--policy', policy).stderr.includes('ERR_IMAGE_REJECTED'))

  t.is(verify('docker://127.0.0.1:1/app:1', '--policy', policy).status, 3)
  t.is(verify('registry.invalid/app:1', '--policy', join(folder, 'none')).status, 2)
  write({ default: [{ type: 'reject', because: 'x' }] })
  const malformed = verify(join(FIXTURES, 'dir-img-valid'), ...as)
  t.is(malformed.status, 2)
  t.true(malformed.stderr.includes('default[0]: unknown member "because"'))
})

test('a bundle about a file is judged by key or by identity, about another file it is refused', async (t) => {
  const folder = join(SIGN, 'sigstore-conformance/bundle-verify')
  const artifact = join(SIGN, 'sigstore-conformance/a.txt')
  const managed = join(folder, 'managed-key-and-trusted-root')
  const key = ['--bundle', join(managed, 'bundle.sigstore.json'), '--key', join(managed, 'key.pub')]
  const root = ['--trusted-root', join(managed, 'trusted_root.json')]
  t.is(verify(artifact, ...key, ...root).status, 0)
  const other = join(await workspace(t), 'other')
  writeFileSync(other, 'other')
  const refused = verify(other, ...key, ...root)
  t.is(refused.status, 1)
  t.true(refused.stderr.includes('ERR_IMAGE_BUNDLE'))
  const login = ['--bundle', join(folder, 'happy-path-v0.3/bundle.sigstore.json')]
  t.is(verify(artifact, ...login).status, 2, 'neither key nor root')
  const statement = JSON.parse(readFileSync(join(SIGN, 'sigstore-conformance/statement.json'), 'utf8'))
  const digest = `sha256:${statement.subject[0].digest.sha256}`
  const trust = ['--trusted-root', join(SIGN, 'sigstore-go/examples/trusted-root-public-good.json')]
  const wrong = verify(digest, ...login, ...trust, '--identity', 'x', '--issuer', 'y')
  t.is(wrong.status, 1)
})
