/** Certificates that were read lately are not read again; nothing else about them is remembered. */
import test from 'ava'
import { parseCertificate } from '#attestation/x509/certificate'
import { CA, issueCertificate, newKey } from '../../fixtures/x509/issue.ts'

const { publicKey, privateKey } = newKey()
const issued = (subject: string): Uint8Array =>
  issueCertificate({ subject, key: publicKey, issuer: { name: 'root', key: privateKey }, extensions: [CA] })

test('a certificate that was read before gives the same value, one with another byte is read for itself', (t) => {
  const der = issued('one')
  const first = parseCertificate(der)
  t.is(parseCertificate(der.slice()), first)
  const changed = der.slice()
  changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1
  t.not(parseCertificate(changed), first)
  t.notDeepEqual(parseCertificate(changed).signature, first.signature)
})

test('what was read does not change when the bytes do that it was read from', (t) => {
  const der = issued('two')
  const copy = der.slice()
  const first = parseCertificate(der)
  der.fill(0)
  t.deepEqual(first.der, copy)
  t.is(parseCertificate(copy), first)
})

test('only the certificates that were read last are remembered', (t) => {
  const der = issued('three')
  const first = parseCertificate(der)
  for (let index = 0; index < 64; index++) parseCertificate(issued(`other ${index}`))
  t.not(parseCertificate(der), first)
})
