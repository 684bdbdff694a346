import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { Script } from 'node:vm'
import test from 'ava'
import { bundleAgent, bundleSignatureEngines, SHARED_ERRORS } from '#guest/build/bundle'
import type { SignatureEngines } from '#image/policy/requirement'
import * as errors from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import { computeDigest } from '#protocol/oci/digest'

const ROOT = join(import.meta.dirname, '../../..')
const SIGN = join(ROOT, 'test/vectors/image-sign')

test('the guest’s second bundle judges OpenPGP signatures and sigstore bundles, and the agent’s own holds neither', async (t) => {
  const agent = await bundleAgent(join(ROOT, 'guest/main.ts'), ROOT)
  const bundle = await bundleSignatureEngines(ROOT)
  for (const name of ['openpgp', '@sigstore/verify']) {
    t.true(bundle.packages.includes(name))
    t.false(agent.packages.includes(name))
  }
  // As the guest loads it: ASCII, one function of Node's module variables.
  const text = Buffer.from(bundle.code).toString('latin1')
  t.false(/[^\n\r\t -~]/.test(text))
  const module: { exports: { signatureEngines?: SignatureEngines } } = { exports: {} }
  const builtins = createRequire(import.meta.url)
  const require = (name: string): unknown => (name === SHARED_ERRORS ? errors : builtins(name))
  new Script(text).runInThisContext()(module.exports, require, module, join(ROOT, 'x.js'), ROOT)
  const { signatureEngines } = module.exports
  if (signatureEngines === undefined) return t.fail()

  const fixtures = join(SIGN, 'containers-image/signature/fixtures')
  const openpgp = await signatureEngines.openpgp()
  const keyring = await openpgp.readKeyring([readFileSync(join(fixtures, 'public-key.gpg'))], 'keyring')
  const options = { now: new Date(), what: 'signature' }
  const message = readFileSync(join(fixtures, 'image.signature'))
  t.regex((await openpgp.verify(message, keyring, options)).signer, /^OpenPGP key [0-9A-F]{40}$/)
  const corrupt = readFileSync(join(fixtures, 'corrupt.signature'))
  await t.throwsAsync(openpgp.verify(corrupt, keyring, options), { instanceOf: errors.MalformedError })

  const bundles = await signatureEngines.bundles()
  const folder = join(SIGN, 'sigstore-conformance/bundle-verify')
  const trustedRoot = readFileSync(join(SIGN, 'sigstore-go/examples/trusted-root-public-good.json'))
  const trust = bundles.readTrust({ keys: [], trustedRoot }, 'root')
  const artifact = readFileSync(join(SIGN, 'sigstore-conformance/a.txt'))
  const verify = (name: string) =>
    bundles.verify(
      readFileSync(join(folder, name, 'bundle.sigstore.json')),
      trust,
      { kind: 'artifact', bytes: artifact, digest: computeDigest(nodeCrypto, artifact) },
      { crypto: nodeCrypto, what: name },
    )
  t.is(verify('happy-path-v0.3').signer.kind, 'certificate')
  t.throws(() => verify('signature-mismatch_fail'), { instanceOf: errors.UnverifiedError })
})
