import test from 'ava'
import fc from 'fast-check'
import { MalformedError } from '#protocol/errors'
import { encodeInitdata, type Initdata, MAX_INITDATA_BYTES, parseInitdata } from '#protocol/initdata'

const FULL: Initdata = {
  verifier: { url: 'https://verifier.test:8443', caPem: 'PEM A' },
  registryCaPem: ['PEM A', 'PEM B'],
  imagePolicyResource: 'default/security-policy/main',
  registryCredentialsResource: 'default/credential/main',
  signatureStorageResource: 'default/sigstore-config/main',
  registriesConfResource: 'default/registry-configuration/main',
  registryProxy: { url: 'http://proxy.test:3128', noProxy: ['.test', '10.0.0.1'] },
  pulls: { layers: 3, connections: 8 },
  policyYaml: 'kind: WorkloadPolicy\n',
  // The public part of the key of RFC 7515, appendix A.3.
  tenantKeyJwk: JSON.stringify({
    kty: 'EC',
    crv: 'P-256',
    alg: 'ECDH-ES+A256KW',
    x: 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU',
    y: 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0',
  }),
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text)

function refusal(bytes: Uint8Array): string {
  try {
    parseInitdata(bytes)
  } catch (error) {
    if (error instanceof MalformedError && error.code === 'ERR_INITDATA_MALFORMED') return error.message
    throw error
  }
  return 'accepted'
}

test('initdata survives encoding and parsing, and equal values give equal bytes', (t) => {
  t.deepEqual(parseInitdata(encodeInitdata(FULL)), FULL)
  t.deepEqual(encodeInitdata(FULL), encodeInitdata({ ...FULL }))
})

test('an unknown member is refused at every level', (t) => {
  const text = new TextDecoder().decode(encodeInitdata(FULL))
  t.regex(refusal(encode(`extra = "x"\n${text}`)), /unknown member "extra"/)
  t.regex(refusal(encode(`${text}\n"evil.toml" = "x"\n`)), /unknown member "evil.toml"/)
  t.regex(refusal(encode(text.replace('[image]', '[image]\\nx = 1'))), /unknown member "x"/)
})

test('another version or algorithm is refused, not read as a known one', (t) => {
  const text = new TextDecoder().decode(encodeInitdata(FULL))
  t.regex(refusal(encode(text.replace('0.1.0', '0.2.0'))), /version is "0.2.0"/)
  t.regex(refusal(encode(text.replace('"sha256"', '"sha1"'))), /algorithm is "sha1"/)
})

test('what a pull may take is a number within what guests bear, and no other value', (t) => {
  const text = new TextDecoder().decode(encodeInitdata(FULL))
  const layers = (value: string): Uint8Array => encode(text.replace('per_image = 3', `per_image = ${value}`))
  t.deepEqual(parseInitdata(layers('16')).pulls, { layers: 16, connections: 8 })
  for (const value of ['0', '17', '-1', '1.5', 'true', '\\"3\\"', '[3]']) {
    t.regex(
      refusal(layers(value)),
      /max_concurrent_layer_downloads_per_image is .*, expected a number from 1 to 16/,
      value,
    )
  }
  t.regex(refusal(encode(text.replace('connections = 8', 'connections = 33'))), /expected a number from 1 to 32/)
  t.is(parseInitdata(encodeInitdata({ ...FULL, pulls: {} })).pulls, undefined)
})

test('a verifier reached without TLS is refused', (t) => {
  const bytes = encodeInitdata(FULL)
  t.regex(refusal(encode(new TextDecoder().decode(bytes).replace('https://', 'http://'))), /expected an https URL/)
})

test('invalid UTF-8 and oversize input are refused before they are read as text', (t) => {
  t.regex(refusal(new Uint8Array([0x76, 0xff, 0xfe])), /not valid TOML/)
  t.regex(refusal(new Uint8Array(MAX_INITDATA_BYTES + 1)), /at most/)
})

test('truncation at any length and any inserted text end in the typed error or a valid document', (t) => {
  const bytes = encodeInitdata(FULL)
  const cut = Array.from(bytes, (_, length) => refusal(bytes.subarray(0, length)))
  // What is left may be a document without its last members; most cuts are within one.
  t.true(cut.filter((told) => told !== 'accepted').length > cut.length / 2)
  const inserted = fc.property(fc.nat(bytes.byteLength), fc.uint8Array({ maxLength: 6 }), (at, insert) => {
    refusal(new Uint8Array([...bytes.subarray(0, at), ...insert, ...bytes.subarray(at)]))
  })
  t.notThrows(() => fc.assert(inserted))
})
