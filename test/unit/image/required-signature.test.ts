/** `signedBy` of a container's rule: any one signer is enough, whatever is the matter with the others. */
import { sign } from 'node:crypto'
import test from 'ava'
import fc from 'fast-check'
import { requiredSignature } from '#guest/agent/image-signers'
import { signatureEngines } from '#image/node/engines'
import { generateSigningKey } from '#image/node/sign'
import { requireSignature } from '#image/policy/evaluate'
import { type FoundSignature, SIGNATURE_ANNOTATION } from '#image/signature/found'
import { encodePayload } from '#image/signature/payload'
import type { SignerRule } from '#policies/image-rule'
import { UnavailableError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import { parseReference } from '#protocol/oci/reference'
import { sha256 } from './fixtures.ts'

const DIGEST = sha256('manifest')
const [KEY, OTHER, THIRD] = [generateSigningKey(), generateSigningKey(), generateSigningKey()]
const RESOURCES: ReadonlyMap<string, string> = new Map([
  ['kbs:///default/keys/release', KEY.publicPem],
  ['kbs:///default/keys/other', OTHER.publicPem],
  ['kbs:///default/keys/broken', 'no key'],
])

const RELEASE: SignerRule = { kind: 'key', resource: 'default/keys/release' }
const SIGNERS: Readonly<Record<string, SignerRule>> = {
  'a key that nobody has': { kind: 'key', resource: 'default/keys/gone' },
  'a key that is none': { kind: 'key', resource: 'default/keys/broken' },
  'another key': { kind: 'key', resource: 'default/keys/other' },
  'another key itself': { kind: 'key-data', pem: THIRD.publicPem },
  'an identity whose roots nobody has': {
    kind: 'identity',
    issuer: 'https://login.example',
    subject: 'release@shop.example',
    trustedRoot: 'default/roots/gone',
  },
}

function cosign(privatePem: string, source = 'signature 1'): FoundSignature {
  const payload = encodePayload({ manifestDigest: DIGEST, dockerReference: 'r.example/app:1' })
  const annotations = new Map([[SIGNATURE_ANNOTATION, sign('sha256', payload, privatePem).toString('base64')]])
  return { kind: 'cosign', payload, annotations, source }
}

interface Asked {
  readonly signatures?: readonly FoundSignature[]
  /** Each request to the registry. */
  readonly requests?: string[]
  readonly bundles?: boolean
}

function judge(signers: readonly SignerRule[], { signatures = [], requests = [], bundles = true }: Asked) {
  return requireSignature(requiredSignature({ place: 'containers.web.signedBy', signers }, bundles), {
    reference: parseReference(`r.example/app@${DIGEST}`),
    digests: [DIGEST],
    signaturesOf: async (digest, kind) => {
      requests.push(`${kind} ${digest}`)
      return signatures.filter((found) => found.kind === kind)
    },
    resolveKey: async (path) => {
      const found = RESOURCES.get(path)
      if (found === undefined) throw new UnavailableError('ERR_RESOURCE_NOT_FOUND', `the verifier has no ${path}`)
      return found
    },
    ...(bundles ? { engines: signatureEngines } : { engines: undefined }),
    crypto: nodeCrypto,
  })
}

test('one signer of several is enough, whatever the others are and wherever it stands', async (t) => {
  const others = fc.array(fc.constantFrom(...Object.values(SIGNERS)), { maxLength: 4 })
  const signatures = [cosign(KEY.privatePem)]
  const name = await judge([RELEASE], { signatures })
  t.regex(name.join(), /^key sha256:[0-9a-f]{64}$/)
  await fc.assert(
    fc.asyncProperty(others, others, fc.boolean(), async (before, after, bundles) => {
      const signers = await judge([...before, RELEASE, ...after], { signatures, bundles })
      return signers.join() === name.join()
    }),
    { numRuns: 60 },
  )
})

test('where none has signed, the error names a signer by its own place in the list', async (t) => {
  const signatures = [cosign(KEY.privatePem)]
  const identity = SIGNERS['an identity whose roots nobody has'] as SignerRule
  const other = SIGNERS['another key'] as SignerRule
  await t.throwsAsync(judge([other], { signatures }), {
    code: 'ERR_IMAGE_SIGNATURE',
    message: /the key that containers\.web\.signedBy\[0\] names/,
  })
  // Keys are tried before identities, and are still called what the policy's author counts.
  await t.throwsAsync(judge([identity, { kind: 'key', resource: 'default/keys/broken' }], { signatures }), {
    code: 'ERR_PUBLIC_KEY',
    message: /^containers\.web\.signedBy\[1\]\.key 1: /,
  })
})

test('where none has signed, a key that cannot be had is told before a signature by somebody else', async (t) => {
  const signatures = [cosign(KEY.privatePem)]
  const [other, gone] = [SIGNERS['another key'], SIGNERS['a key that nobody has']] as [SignerRule, SignerRule]
  await t.throwsAsync(judge([other, gone], { signatures }), { code: 'ERR_RESOURCE_NOT_FOUND', message: /keys\/gone/ })
  await t.throwsAsync(judge([other], {}), { code: 'ERR_IMAGE_UNSIGNED' })
})

test('however many signers a rule names, the registry is asked for signatures once', async (t) => {
  const requests: string[] = []
  const signers = Object.values(SIGNERS)
  await t.throwsAsync(judge(signers, { signatures: [cosign(KEY.privatePem)], requests }))
  t.deepEqual(requests.sort(), [`bundle ${DIGEST}`, `cosign ${DIGEST}`])
})
