/** sigstore-conformance's verdicts, by the names of its folders, and bundles that other projects' tests accept. */
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { requireIdentity, verifyArtifact } from '#image/node/verify-artifact'
import { parseBundle, sigstoreBundles } from '#image/signature/bundle'
import { parseTrustedRoot } from '#image/signature/trusted-root'
import { CaissonError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'

const VECTORS = join(import.meta.dirname, '../../vectors')
const SIGN = join(VECTORS, 'image-sign')
const expected = JSON.parse(readFileSync(join(SIGN, '_expected/others.json'), 'utf8'))['sigstore-conformance']
const [, defaultIdentity = ''] = /identity (\S+),/.exec(expected) ?? []
const [, defaultIssuer = ''] = /issuer (\S+),/.exec(expected) ?? []
const [, defaultRoot = ''] = /public good \((\S+)\)/.exec(expected) ?? []

const FOLDERS = join(SIGN, 'sigstore-conformance/bundle-verify')
const folders = readdirSync(FOLDERS, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name)

test('all folders of the conformance suite are judged', (t) => {
  t.is(folders.length, 35)
  t.is(folders.filter((name) => name.endsWith('_fail')).length, 25)
})

for (const name of folders) {
  test(`sigstore-conformance: ${name}`, (t) => {
    const file = (part: string) => join(FOLDERS, name, part)
    const read = (part: string, fallback: string) => readFileSync(existsSync(file(part)) ? file(part) : fallback)
    const word = (part: string, fallback: string) =>
      existsSync(file(part)) ? readFileSync(file(part), 'utf8').trim() : fallback
    const judge = (): void => {
      const verified = verifyArtifact({
        artifact: read('artifact', join(SIGN, 'sigstore-conformance/a.txt')),
        bundle: readFileSync(file('bundle.sigstore.json')),
        trustedRoot: read('trusted_root.json', join(VECTORS, defaultRoot)),
        key: existsSync(file('key.pub')) ? readFileSync(file('key.pub')) : undefined,
      })
      if (existsSync(file('key.pub'))) return
      const [issuer, subject] = [word('issuer', defaultIssuer), word('identity', defaultIdentity)]
      requireIdentity(verified, { issuer, subject })
    }
    if (!name.endsWith('_fail')) t.notThrows(judge)
    else t.regex(t.throws(judge, { instanceOf: CaissonError })?.code ?? '', /^ERR_(IMAGE_|BASE64|JSON)/)
  })
}

const JS = join(SIGN, 'sigstore-js/tests/bundles')
for (const name of readdirSync(JS).filter((entry) => entry.endsWith('.sigstore'))) {
  test(`bundles of sigstore-js: ${name}`, (t) => {
    const json = readFileSync(join(JS, name))
    const { content } = parseBundle(json, name)
    const statement = content.$case === 'dsseEnvelope' ? JSON.parse(content.dsseEnvelope.payload.toString()) : undefined
    const [[algorithm, hex] = []] = Object.entries<string>(statement?.subject[0].digest ?? {})
    const trust = sigstoreBundles.readTrust(
      { keys: [], trustedRoot: readFileSync(join(VECTORS, defaultRoot)) },
      'trusted root',
    )
    const options = { crypto: nodeCrypto, what: name }
    const verify = (digest: string) =>
      sigstoreBundles.verify(json, trust, { kind: 'digest', digest: digest as `sha256:${string}` }, options)
    const { signer } = verify(`${algorithm}:${hex}`)
    t.is(signer.kind, 'certificate')
    const other = createHash('sha256').update('other').digest('hex')
    t.throws(() => verify(`sha256:${other}`), { code: 'ERR_IMAGE_BUNDLE', message: /about something else/ })
  })
}

test('a time stamp by an unknown authority neither helps nor harms, and without a trusted root a key is all', (t) => {
  const artifact = readFileSync(join(SIGN, 'sigstore-conformance/a.txt'))
  // The conformance suite has this bundle to be judged without its key; the key is that of another folder.
  const bundle = readFileSync(join(FOLDERS, 'managed-key-no-key_fail/bundle.sigstore.json'))
  const key = readFileSync(join(FOLDERS, 'managed-key-and-trusted-root/key.pub'))
  const stamped = JSON.parse(bundle.toString()).verificationMaterial.timestampVerificationData
  t.true(stamped.rfc3161Timestamps.length > 0)
  const trustedRoot = readFileSync(join(VECTORS, defaultRoot))
  t.is(verifyArtifact({ artifact, bundle, trustedRoot, key }).signer.kind, 'key')
  t.is(verifyArtifact({ artifact, bundle, trustedRoot: undefined, key }).signer.kind, 'key')
  const otherRoot = readFileSync(join(FOLDERS, 'managed-key-and-trusted-root/trusted_root.json'))
  t.throws(() => verifyArtifact({ artifact, bundle, trustedRoot: otherRoot, key }), { code: 'ERR_IMAGE_BUNDLE' })
  const other = Buffer.from('other')
  t.throws(() => verifyArtifact({ artifact: other, bundle, trustedRoot: undefined, key }), { code: 'ERR_IMAGE_BUNDLE' })
})

test('an entry without a time of its own counts only if its log was trusted when it was stamped', (t) => {
  const folder = join(FOLDERS, 'rekor2-checkpoint-multiple-cosigs')
  const root = JSON.parse(readFileSync(join(folder, 'trusted_root.json'), 'utf8'))
  const judge = () =>
    verifyArtifact({
      artifact: readFileSync(join(SIGN, 'sigstore-conformance/a.txt')),
      bundle: readFileSync(join(folder, 'bundle.sigstore.json')),
      trustedRoot: Buffer.from(JSON.stringify(root)),
      key: undefined,
    })
  t.notThrows(judge)
  for (const { publicKey } of root.tlogs) publicKey.validFor.end = publicKey.validFor.start
  t.throws(judge, { code: 'ERR_IMAGE_BUNDLE', message: /its log was not trusted/ })
})

test('a trusted root of which a log has no beginning is refused', (t) => {
  const document = JSON.parse(readFileSync(join(VECTORS, defaultRoot), 'utf8'))
  t.notThrows(() => parseTrustedRoot(Buffer.from(JSON.stringify(document)), 'root'))
  delete document.tlogs[0].publicKey.validFor.start
  t.throws(() => parseTrustedRoot(Buffer.from(JSON.stringify(document)), 'root'), {
    code: 'ERR_IMAGE_TRUSTED_ROOT',
    message: /lacks the start of its validity/,
  })
})
