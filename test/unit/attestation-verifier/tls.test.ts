import { X509Certificate } from 'node:crypto'
import test from 'ava'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'

const now = new Date('2026-03-01T12:00:00Z')
const ca = createCa({ name: 'Test CA é', now })
const server = issueServerCertificate({ ca, names: ['verifier.test'], ips: ['127.0.0.1', '::1', 'fd00::7:8'], now })
const root = new X509Certificate(ca.certificatePem)
const leaf = new X509Certificate(server.certificatePem)

test('the root signs itself and is a CA', (t) => {
  t.true(root.ca)
  t.true(root.checkIssued(root))
  t.true(root.verify(root.publicKey))
})

test('the server certificate chains to the root and is no CA', (t) => {
  t.false(leaf.ca)
  t.true(leaf.checkIssued(root))
  t.true(leaf.verify(root.publicKey))
  t.deepEqual(leaf.keyUsage, ['1.3.6.1.5.5.7.3.1'])
})

test('names and addresses are those that were asked for', (t) => {
  t.is(leaf.checkHost('verifier.test'), 'verifier.test')
  t.is(leaf.checkHost('other.test'), undefined)
  for (const ip of ['127.0.0.1', '::1', 'fd00::7:8']) t.is(leaf.checkIP(ip), ip)
  t.is(leaf.checkIP('127.0.0.2'), undefined)
})

test('validity starts a little before now, and long ones are written as RFC 5280 asks', (t) => {
  t.is(leaf.validFromDate.toISOString(), '2026-03-01T11:50:00.000Z')
  t.is(leaf.validToDate.getTime() - now.getTime(), 397 * 86_400_000)
  const long = new X509Certificate(createCa({ now, validDays: 36_500 }).certificatePem)
  t.is(long.validToDate.getUTCFullYear(), 2126)
})

test('a certificate for nothing, or for what is no address, is refused', (t) => {
  t.throws(() => issueServerCertificate({ ca, names: [] }), { code: 'ERR_CERTIFICATE_NAMES' })
  t.throws(() => issueServerCertificate({ ca, names: ['a'], ips: ['b'] }), { code: 'ERR_CERTIFICATE_NAMES' })
})
