import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { parseCertificate } from '#attestation/x509/certificate'
import { refusesOrKeeps } from '../parser-property.ts'

const PATH = '../../vectors/tpm/go-tpm-tools/internal/test/certificates/uca_tpm_ecc_sign_cert.pem'
const { der } = parseCertificate(readFileSync(new URL(PATH, import.meta.url), 'utf8'))

test('a certificate with any bytes changed, cut or added is read whole, or refused', (t) => {
  const changed = fc
    .tuple(fc.nat(der.length), fc.nat(4), fc.uint8Array({ maxLength: 4 }))
    .map(([at, length, bytes]) => new Uint8Array([...der.subarray(0, at), ...bytes, ...der.subarray(at + length)]))
  refusesOrKeeps(
    t,
    fc.oneof({ weight: 4, arbitrary: changed }, fc.uint8Array({ maxLength: 64 })),
    parseCertificate,
    (certificate, input) => Buffer.compare(certificate.der, input) === 0,
  )
})
