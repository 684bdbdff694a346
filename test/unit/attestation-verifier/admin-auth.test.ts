import test from 'ava'
import { generateKeyPair, importJWK, SignJWT } from 'jose'
import { AdminAuthenticator, adminKeyId, createAdminKey } from '#attestation/verifier/admin/authenticator'

/** A reader's call of a tenant without administrators of its own. */
const READ = { admins: [], needs: ['owner', 'operator', 'auditor'] } as const
const NOW_S = 1_000_000
const key = createAdminKey()
const authenticator = new AdminAuthenticator({ keys: [key.publicJwk], now: () => new Date(NOW_S * 1000) })

async function bearer(claims: { iat?: number; exp?: number }, signer = key): Promise<string> {
  const jwt = new SignJWT(claims).setProtectedHeader({ alg: 'EdDSA' })
  return `Bearer ${await jwt.sign(await importJWK(signer.privateJwk, 'EdDSA'))}`
}

test('a current token of a registered key names its administrator', async (t) => {
  t.is((await authenticator.authenticate(await bearer({ iat: NOW_S, exp: NOW_S + 60 }), READ)).id, key.id)
})

test('the key id depends on the public key alone', (t) => {
  t.is(adminKeyId(key.privateJwk), key.id)
  t.not(createAdminKey().id, key.id)
})

const refused: [string, { iat?: number; exp?: number }][] = [
  ['expired', { iat: NOW_S - 120, exp: NOW_S - 60 }],
  ['without an expiry', { iat: NOW_S }],
  ['without a time of issue', { exp: NOW_S + 60 }],
  ['that lives too long', { iat: NOW_S, exp: NOW_S + 3600 }],
  ['from the future', { iat: NOW_S + 3600, exp: NOW_S + 3660 }],
  ['issued long ago', { iat: NOW_S - 3600, exp: NOW_S + 60 }],
]
for (const [what, claims] of refused) {
  test(`a token ${what} is refused`, async (t) => {
    await t.throwsAsync(authenticator.authenticate(await bearer(claims), READ), { code: 'ERR_ADMIN_AUTH' })
  })
}

test('tokens of other keys, other algorithms and no tokens at all are refused alike', async (t) => {
  const claims = { iat: NOW_S, exp: NOW_S + 60 }
  const hs256 = await new SignJWT(claims).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(key.publicJwk.x ?? ''))
  const { privateKey } = await generateKeyPair('ES256')
  const es256 = await new SignJWT(claims).setProtectedHeader({ alg: 'ES256' }).sign(privateKey)
  const headers = [
    await bearer(claims, createAdminKey()),
    `Bearer ${hs256}`,
    `Bearer ${es256}`,
    'Bearer',
    'Basic eA==',
    '',
    undefined,
  ]
  for (const header of headers)
    await t.throwsAsync(authenticator.authenticate(header, READ), { code: 'ERR_ADMIN_AUTH' })
})

test('a verifier does not start with an administrator key of another kind', (t) => {
  for (const jwk of [
    { kty: 'EC', crv: 'P-256', x: 'x', y: 'y' },
    { kty: 'OKP', crv: 'X25519', x: key.publicJwk.x ?? '' },
    {},
  ]) {
    t.throws(() => new AdminAuthenticator({ keys: [jwk], now: () => new Date() }), { code: 'ERR_ADMIN_KEY' })
  }
})

test('a role reaches as far as it is said to, and only within its tenant', async (t) => {
  const [auditor, operator] = [createAdminKey(), createAdminKey()]
  const admins = [
    { key: auditor.publicJwk, role: 'auditor' },
    { key: operator.publicJwk, role: 'operator' },
  ] as const
  const claims = { iat: NOW_S, exp: NOW_S + 60 }
  const ask = async (signer: typeof auditor, needs: readonly ('owner' | 'operator' | 'auditor')[]) =>
    authenticator.authenticate(await bearer(claims, signer), { admins, needs })
  t.like(await ask(auditor, ['owner', 'operator', 'auditor']), { id: auditor.id, role: 'auditor', root: false })
  await t.throwsAsync(ask(auditor, ['owner', 'operator']), { code: 'ERR_ADMIN_ROLE' })
  t.like(await ask(operator, ['owner', 'operator']), { role: 'operator' })
  await t.throwsAsync(ask(operator, []), { code: 'ERR_ADMIN_ROLE' }, 'tenants are for administrators of the service')
  t.like(await ask(key, []), { root: true })
  await t.throwsAsync(authenticator.authenticate(await bearer(claims, auditor), READ), { code: 'ERR_ADMIN_AUTH' })
})
