import { createPrivateKey, generateKeyPairSync, type JsonWebKey, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test from 'ava'
import { parseVerificationKey, unseal } from '#guest/agent/unseal'
import { CaissonError } from '#protocol/errors'
import { parseSealedSecret } from '#protocol/sealed-secret'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

/** Payloads and key of the guest components' own tests. */
const VECTORS = 'test/vectors/kbs/guest-components/confidential-data-hub/hub/src/secret/tests'
const vector = (name: string): string => readFileSync(`${VECTORS}/${name}`, 'utf8')
const JWK = JSON.parse(vector('test-key.json')) as Record<string, string>
const KEY = 'default/sealing/test-key'
const TARGET = 'one/2/trois'
const VAULT = {
  version: '0.1.0',
  type: 'vault',
  provider: 'kbs',
  name: `kbs:///${TARGET}`,
  provider_settings: {},
  annotations: {},
}
const HEADER = { alg: 'ES256', kid: `kbs:///${KEY}` }

const encoded = (value: unknown): string =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
const keyOf = (jwk: JsonWebKey) => createPrivateKey({ key: jwk, format: 'jwk' })

/** As the guest components seal: ES256 over header and payload, r and s one after the other. */
function seal(payload: unknown, header: unknown = HEADER, key = keyOf(JWK)): string {
  const input = `${encoded(header)}.${encoded(payload)}`
  return `sealed.${input}.${sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
}

function opened(sealed: string, key: unknown = JWK) {
  const resources: Record<string, string> = { [KEY]: JSON.stringify(key), [TARGET]: 'the secret' }
  const asked: string[] = []
  const secret = unseal({
    sealed,
    key: KEY,
    field: 'containers.web.env.X',
    resource: async (path) => {
      asked.push(path)
      return new TextEncoder().encode(resources[path] ?? '')
    },
  })
  return { secret, asked }
}

test('a vault secret of the verifier, signed with the key of the policy, is unsealed', async (t) => {
  const { secret, asked } = opened(seal(VAULT))
  t.is(new TextDecoder().decode(await secret), 'the secret')
  t.deepEqual(asked, [KEY, TARGET])
})

test('every character of a sealed secret counts', async (t) => {
  const sealed = seal(VAULT)
  for (let offset = 0; offset < sealed.length; offset += 3) {
    const changed = `${sealed.slice(0, offset)}${sealed[offset] === 'X' ? 'Y' : 'X'}${sealed.slice(offset + 1)}`
    const { secret, asked } = opened(changed)
    const error = await t.throwsAsync(secret, { instanceOf: CaissonError }, changed)
    t.regex(error?.code ?? '', /^ERR_(SEALED_SECRET(_SIGNATURE)?|POLICY_DENIED)$/)
    t.false(asked.includes(TARGET))
  }
})

const REFUSED: readonly [what: string, sealed: () => string, code: string][] = [
  [
    'signed by another key',
    () => seal(VAULT, HEADER, generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey),
    'ERR_SEALED_SECRET_SIGNATURE',
  ],
  [
    'that names another key',
    () => seal(VAULT, { ...HEADER, kid: 'kbs:///default/sealing/other' }),
    'ERR_POLICY_DENIED',
  ],
  ['whose key is a file of the guest', () => seal(VAULT, { ...HEADER, kid: 'test-key' }), 'ERR_POLICY_DENIED'],
  ['that is not signed', () => `sealed.fakejwsheader.${encoded(VAULT)}.fakesignature`, 'ERR_SEALED_SECRET'],
  ['with alg none', () => seal(VAULT, { ...HEADER, alg: 'none' }), 'ERR_SEALED_SECRET'],
  ['with a key of its own', () => seal(VAULT, { ...HEADER, jwk: JWK }), 'ERR_SEALED_SECRET'],
  ['with critical extensions', () => seal(VAULT, { ...HEADER, crit: ['b64'], b64: false }), 'ERR_SEALED_SECRET'],
  ['of another version', () => seal({ ...VAULT, version: '0.2.0' }), 'ERR_SEALED_SECRET'],
  ['with an unknown member', () => seal({ ...VAULT, also: 'this' }), 'ERR_SEALED_SECRET'],
  [
    'of a resource on another host',
    () => seal({ ...VAULT, name: 'kbs://host/one/2/trois' }),
    'ERR_SEALED_SECRET_PROVIDER',
  ],
  ['of a cloud’s vault', () => seal(vector('vault-1.json')), 'ERR_SEALED_SECRET_PROVIDER'],
  ['in an envelope of a cloud’s key service', () => seal(vector('envelope-1.json')), 'ERR_SEALED_SECRET_PROVIDER'],
]
for (const [what, sealed, code] of REFUSED) {
  test(`a sealed secret ${what} is refused`, async (t) => {
    const { secret, asked } = opened(sealed())
    await t.throwsAsync(secret, { code })
    t.false(asked.includes(TARGET))
  })
}

test('a key that is no P-256 key verifies nothing', async (t) => {
  for (const key of ['', { kty: 'oct', k: 'AAAA' }, { ...JWK, crv: 'P-384' }, { ...JWK, x: undefined }]) {
    await t.throwsAsync(opened(seal(VAULT), key).secret, { code: 'ERR_SEALED_SECRET_KEY' })
  }
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const offCurve = { ...publicKey.export({ format: 'jwk' }), y: JWK.y }
  await t.throwsAsync(opened(seal(VAULT), offCurve).secret, { code: 'ERR_SEALED_SECRET_SIGNATURE' })
})

test('the payloads of the guest components are read as what they are', (t) => {
  t.deepEqual(parseSealedSecret(seal(vector('vault-1.json'))).content, {
    type: 'vault',
    provider: 'aliyun',
    name: 'xxx',
  })
  t.like(parseSealedSecret(seal(vector('envelope-1.json'))).content, {
    type: 'envelope',
    provider: 'aliyun',
    keyId: 'xxx',
    iv: 'www',
  })
})

test('a sealed secret is read in one form only, or refused', (t) => {
  const good = seal(VAULT)
  refusesOrKeeps(t, damaged(good), parseSealedSecret, ({ jws }, text) => text === `sealed.${jws}`)
  for (let length = 0; length < good.length; length++) {
    t.throws(() => parseSealedSecret(good.slice(0, length)), { code: 'ERR_SEALED_SECRET' })
  }
  t.throws(() => parseSealedSecret(`${good}A`), { code: 'ERR_SEALED_SECRET' })
  t.throws(() => parseSealedSecret(`sealed.${'A'.repeat(70_000)}`), { code: 'ERR_SEALED_SECRET' })
})

test('a key of sealed secrets gives its public half, or is refused', (t) => {
  refusesOrKeeps(
    t,
    damaged(vector('test-key.json')),
    (text) => parseVerificationKey(new TextEncoder().encode(text)),
    (key) => Object.keys(key).join() === 'kty,crv,x,y',
  )
})
