import test from 'ava'
import fc from 'fast-check'
import { isPkcs11Uri, parsePkcs11Uri } from '#attestation/store/pkcs11-uri'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

const GOOD = 'pkcs11:token=Store%20keys;object=caisson?module-path=/usr/lib/m.so&pin-source=file:/run/pin'

test('a PKCS #11 URI names module, token, key and the file of the PIN', (t) => {
  t.true(isPkcs11Uri(GOOD))
  t.deepEqual(parsePkcs11Uri(GOOD), {
    modulePath: '/usr/lib/m.so',
    pinFile: '/run/pin',
    token: 'Store keys',
    object: 'caisson',
  })
  t.deepEqual(
    parsePkcs11Uri('pkcs11:serial=00ff;id=%00%ff;type=secret-key?pin-source=file:///p&module-path=/m%2Fn.so'),
    { modulePath: '/m/n.so', pinFile: '/p', serial: '00ff', id: Uint8Array.of(0, 255) },
  )
})

const REFUSED: readonly [string, string][] = [
  ['no token', 'pkcs11:object=a?module-path=/m&pin-source=/p'],
  ['no key', 'pkcs11:token=a?module-path=/m&pin-source=/p'],
  ['no module', 'pkcs11:token=a;object=b?pin-source=/p'],
  ['a module that is not absolute', 'pkcs11:token=a;object=b?module-path=m.so&pin-source=/p'],
  ['no source of the PIN', 'pkcs11:token=a;object=b?module-path=/m'],
  ['a PIN from elsewhere', 'pkcs11:token=a;object=b?module-path=/m&pin-source=https://x/p'],
  ['a PIN on another machine', 'pkcs11:token=a;object=b?module-path=/m&pin-source=file://host/p'],
  ['the PIN itself', 'pkcs11:token=a;object=b?module-path=/m&pin-value=1234'],
  ['a token twice', 'pkcs11:token=a;token=b;object=c?module-path=/m&pin-source=/p'],
  ['an attribute that is not known', 'pkcs11:token=a;object=b;slot-id=1?module-path=/m&pin-source=/p'],
  ['another type', 'pkcs11:token=a;object=b;type=private?module-path=/m&pin-source=/p'],
  ['an empty value', 'pkcs11:token=;object=b?module-path=/m&pin-source=/p'],
  ['a NUL byte', 'pkcs11:token=a%00b;object=b?module-path=/m&pin-source=/p'],
  ['bytes that are no text', 'pkcs11:token=%ff;object=b?module-path=/m&pin-source=/p'],
  ['half an escape', 'pkcs11:token=a%2;object=b?module-path=/m&pin-source=/p'],
  ['a label that no token can have', `pkcs11:token=${'a'.repeat(33)};object=b?module-path=/m&pin-source=/p`],
]

for (const [what, uri] of REFUSED) {
  test(`a PKCS #11 URI with ${what} is refused`, (t) => {
    t.throws(() => parsePkcs11Uri(uri), { code: 'ERR_PKCS11_URI' })
  })
}

test('whatever text is given as a PKCS #11 URI names one key completely, or is refused', (t) => {
  refusesOrKeeps(t, damaged(GOOD), parsePkcs11Uri, (value) => {
    const names = [value.token ?? value.serial ?? '', value.object ?? value.id ?? '']
    const paths = [value.modulePath, value.pinFile]
    return names.every((name) => name.length > 0) && paths.every((path) => path.startsWith('/') && !path.includes('\0'))
  })
  const label = fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 32 })
  fc.assert(
    fc.property(label, (token) => {
      const escaped = Buffer.from(token).toString('hex').replace(/../g, '%$&')
      return parsePkcs11Uri(GOOD.replace('Store%20keys', escaped)).token === token
    }),
  )
})
