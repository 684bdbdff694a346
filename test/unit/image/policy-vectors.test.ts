/** The verdicts that containers/image's and image-rs's own tests state for their fixtures. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { signatureEngines } from '#image/node/engines'
import { verifyFolder } from '#image/node/verify'
import { evaluateSignaturePolicy } from '#image/policy/evaluate'
import { parseSignaturePolicy } from '#image/policy/parse'
import { CaissonError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import { parseDigest } from '#protocol/oci/digest'
import { parseReference } from '#protocol/oci/reference'

const VECTORS = join(import.meta.dirname, '../../vectors')
const FIXTURES = join(VECTORS, 'image-sign/containers-image/signature/fixtures')
const read = (path: string) => readFileSync(join(VECTORS, path))
const expected = JSON.parse(read('image-sign/_expected/containers-image.json').toString())
const others = JSON.parse(read('image-sign/_expected/others.json').toString())['image-rs']

interface Case {
  readonly requirement: object
  readonly folder: string
  readonly reference: string | undefined
  readonly verdict: string
}

/** For a reason of its own, not by accident. */
async function refused(t: ExecutionContext, judgement: Promise<unknown>): Promise<void> {
  const error = await t.throwsAsync(judgement, { instanceOf: CaissonError })
  t.regex(error.code, /^ERR_(IMAGE|DIR_IMAGE)_/)
}

async function judged(t: ExecutionContext, { requirement, folder, reference, verdict }: Case): Promise<void> {
  const policy = parseSignaturePolicy(JSON.stringify({ default: [requirement] }))
  const judgement = verifyFolder({
    folder: join(FIXTURES, folder),
    reference,
    policy,
    resolveKey: (path) => Promise.resolve(new Uint8Array(readFileSync(path))),
    now: new Date('2025-09-01T00:00:00Z'),
  })
  if (verdict.startsWith('accept')) await t.notThrowsAsync(judgement)
  else await refused(t, judgement)
}

const gpg = expected.gpg_signedBy
for (const [name, verdict] of Object.entries<string>(gpg.cases)) {
  test(`signedBy: ${name}: ${verdict}`, async (t) => {
    const [folder = '', reference = 'testing/manifest:latest'] = name.split(' with ref ')
    const requirement = { type: 'signedBy', keyType: 'GPGKeys', keyPath: join(VECTORS, gpg.keyPath) }
    await judged(t, {
      folder,
      reference,
      verdict,
      requirement: { ...requirement, signedIdentity: { type: 'matchExact' } },
    })
    const [, dockerReference] = / ([^ ]+)$/.exec(gpg.signedIdentity) ?? []
    const exact = { type: 'exactReference', dockerReference }
    // A rule that names the reference itself does not look at the name that was asked for.
    const named = verdict.startsWith('accept') || reference === dockerReference ? verdict : 'accept'
    await judged(t, { folder, reference, verdict: named, requirement: { ...requirement, signedIdentity: exact } })
    await judged(t, {
      folder,
      reference: undefined,
      verdict: named,
      requirement: { ...requirement, signedIdentity: exact },
    })
  })
}

async function judgeMessage(message: Uint8Array, policy: object, image: { reference: string; digest: string }) {
  return await evaluateSignaturePolicy({
    policy: parseSignaturePolicy(JSON.stringify({ default: [policy] })),
    reference: parseReference(image.reference),
    digests: [parseDigest(image.digest, 'digest')],
    signaturesOf: (_, kind) =>
      Promise.resolve(kind === 'openpgp' ? [{ kind, message, source: 'signature-1' } as const] : []),
    resolveKey: (path) => Promise.resolve(new Uint8Array(readFileSync(path))),
    crypto: nodeCrypto,
    engines: signatureEngines,
    now: new Date('2025-09-01T00:00:00Z'),
  })
}

for (const [name, verdict] of Object.entries<string>(gpg.loose_signatures)) {
  test(`signedBy: ${name}: ${verdict}`, async (t) => {
    const requirement = {
      type: 'signedBy',
      keyType: 'GPGKeys',
      keyPath: join(VECTORS, gpg.keyPath),
      signedIdentity: { type: 'matchRepository' },
    }
    const message = new Uint8Array(readFileSync(join(FIXTURES, name)))
    const image = { reference: 'testing/manifest:latest', digest: gpg.manifest_digest }
    const judgement = judgeMessage(message, requirement, image)
    if (verdict.startsWith('accept')) await t.notThrowsAsync(judgement)
    else await refused(t, judgement)
  })
}

test(`signedBy: the signature of image-rs: ${others['simple signing'].verdict}`, async (t) => {
  const { keyring, signature, payload } = others['simple signing']
  const requirement = { type: 'signedBy', keyType: 'GPGKeys', keyPath: join(VECTORS, keyring) }
  const image = { reference: payload['docker-reference'], digest: payload['docker-manifest-digest'] }
  t.is(others['simple signing'].verdict, 'accept')
  const { signers } = await judgeMessage(new Uint8Array(read(signature)), requirement, image)
  t.regex(signers.join(), /^OpenPGP key [0-9A-F]{40}$/)
  const other = { ...image, reference: 'quay.io/ali_os_security/alpine:other' }
  await t.throwsAsync(judgeMessage(new Uint8Array(read(signature)), requirement, other), { code: 'ERR_IMAGE_IDENTITY' })
})

const cosign = expected.sigstoreSigned_key
for (const [name, verdict] of Object.entries<string>(cosign.cases)) {
  test(`sigstoreSigned: ${name}: ${verdict}`, async (t) => {
    const [, rule = '', repository = ''] = /^(\w+) (\S+)$/.exec(cosign.signedIdentity) ?? []
    const [folder = '', other = ''] = name.split(/ with | (?=match)/)
    const keyPath = other.endsWith('.pub') ? join(FIXTURES, other) : join(VECTORS, cosign.keyPath)
    const signedIdentity = { type: other.startsWith('match') ? other : rule }
    const requirement = { type: 'sigstoreSigned', keyPath, signedIdentity }
    await judged(t, { folder, reference: `${repository}:latest`, verdict, requirement })
  })
}

test(`sigstoreSigned with a log: ${expected['key+rekor'].verdict}`, async (t) => {
  const { image: folder, keyPath, rekor, ref: reference } = expected['key+rekor']
  const path = (name: string) => join(FIXTURES, name)
  const requirement = {
    type: 'sigstoreSigned',
    keyPath: path(keyPath),
    rekorPublicKeyPath: path(rekor),
    signedIdentity: { type: 'matchRepository' },
  }
  await judged(t, { folder, reference, verdict: 'accept', requirement })
  const wrong = { ...requirement, rekorPublicKeyPath: path('cosign.pub') }
  await judged(t, { folder, reference, verdict: 'reject', requirement: wrong })
  // A signature without an entry, judged by a policy that demands one.
  const unlogged = { ...requirement, keyPath: join(VECTORS, cosign.keyPath) }
  const plain = { folder: 'dir-img-cosign-valid', reference: '192.168.64.2:5000/cosign-signed-single-sample:latest' }
  await judged(t, { ...plain, verdict: 'reject', requirement: unlogged })
})
