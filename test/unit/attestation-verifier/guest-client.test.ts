/** What the guest believes of a verifier's answers: nothing that is not for this handshake and this key. */
import test from 'ava'
import { FlattenedEncrypt, importJWK, UnsecuredJWT } from 'jose'
import { createTeeKeyPair, openSealedResource } from '#attestation/client/sealed-resource'
import { readToken } from '#attestation/client/token-claims'

const NONCE = 'bm9uY2U='

function token(bound: object, times: object = { iat: 1000, exp: 2000 }): string {
  const evidence = { 'ear.veraison.annotated-evidence': { runtime_data_claims: bound } }
  return new UnsecuredJWT({ ...times, submods: { cpu0: { 'ear.status': 'affirming', ...evidence } } }).encode()
}

test('a token is taken only when it binds the nonce and the key of this handshake', async (t) => {
  const { publicKey } = await createTeeKeyPair()
  const { publicKey: other } = await createTeeKeyPair()
  const expected = { nonce: NONCE, teePublicKey: publicKey }
  const good = { nonce: NONCE, 'tee-pubkey': publicKey }
  t.deepEqual(readToken(token(good), expected).issuedAt, new Date(1_000_000))
  for (const bound of [
    { ...good, nonce: 'b3RoZXI=' },
    { ...good, 'tee-pubkey': other },
    { ...good, 'tee-pubkey': { ...publicKey, x: other.kty === 'EC' ? other.x : '' } },
    { nonce: NONCE },
    { 'tee-pubkey': publicKey },
    {},
  ]) {
    t.throws(() => readToken(token(bound), expected), { code: 'ERR_VERIFIER_ANSWER' }, JSON.stringify(bound))
  }
})

test('a token without sensible times is refused: the guest sets its clock by them', async (t) => {
  const { publicKey } = await createTeeKeyPair()
  const bound = { nonce: NONCE, 'tee-pubkey': publicKey }
  for (const times of [{}, { iat: 1000 }, { iat: 0, exp: 1 }, { iat: 2000, exp: 1000 }, { iat: 1, exp: 1e300 }]) {
    const read = () => readToken(token(bound, times), { nonce: NONCE, teePublicKey: publicKey })
    t.throws(read, { code: 'ERR_VERIFIER_ANSWER' }, JSON.stringify(times))
  }
})

test('a resource opens only under the algorithms that its key is for, whatever its header says', async (t) => {
  const { privateKey, publicKey } = await createTeeKeyPair()
  const key = await importJWK({ ...publicKey }, 'ECDH-ES+A256KW')
  const seal = async (alg: string, enc: string) => {
    const jwe = await new FlattenedEncrypt(Buffer.from('secret')).setProtectedHeader({ alg, enc }).encrypt(key)
    // Direct agreement has no encrypted key.
    return Buffer.from(JSON.stringify({ encrypted_key: '', ...jwe }))
  }
  t.is(Buffer.from(await openSealedResource(await seal('ECDH-ES+A256KW', 'A256GCM'), privateKey)).toString(), 'secret')
  for (const [alg, enc] of [
    ['ECDH-ES', 'A256GCM'],
    ['ECDH-ES+A128KW', 'A256GCM'],
    ['ECDH-ES+A256KW', 'A128CBC-HS256'],
  ] as const) {
    const body = await seal(alg, enc)
    await t.throwsAsync(openSealedResource(body, privateKey), { code: 'ERR_RESOURCE_SEAL' }, `${alg}, ${enc}`)
  }
})
