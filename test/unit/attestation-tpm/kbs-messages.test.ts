import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { canonicalJson } from '#protocol/canonical-json'
import type { CryptoProvider } from '#protocol/crypto-provider'
import { MalformedError } from '#protocol/errors'
import {
  encodeKbsAttestation,
  encodeKbsChallenge,
  encodeKbsRequest,
  KBS_VERSIONS,
  type KbsAttestation,
  parseKbsAttestation,
  parseKbsChallenge,
  parseKbsRequest,
  reportDataBytes,
  reportDataDigest,
} from '#protocol/kbs-messages'
import { parseTpmEvidence, replayAdmittedImages, type TpmEvidence, tpmEvidenceJson } from '#protocol/tpm-messages'

const sha: Pick<CryptoProvider, 'createHash'> = {
  createHash: (algorithm) => {
    const hash = createHash(algorithm)
    return { update: (bytes) => void hash.update(bytes), digest: () => new Uint8Array(hash.digest()) }
  },
}
const crypto = {
  ...sha,
  digest: (algorithm, bytes) => new Uint8Array(createHash(algorithm).update(bytes).digest()),
  verify: () => false,
  randomBytes: (length: number) => new Uint8Array(length),
  timingSafeEqual: () => false,
} satisfies CryptoProvider

const coordinate = Buffer.alloc(32, 7).toString('base64url')
const key = { kty: 'EC', crv: 'P-256', alg: 'ECDH-ES+A256KW', x: coordinate, y: coordinate } as const
const evidence: TpmEvidence = {
  akPublic: new Uint8Array([1, 2, 3]),
  quote: {
    message: new Uint8Array([4]),
    signature: new Uint8Array([5, 6]),
    pcrs: Array.from({ length: 24 }, (_, pcr) => (pcr < 10 ? new Uint8Array(32).fill(pcr) : undefined)),
  },
  eventLog: new Uint8Array(100),
  credentialSecret: new Uint8Array(32).fill(9),
  images: [{ container: 'web', manifest: `sha256:${'a'.repeat(64)}`, config: `sha256:${'b'.repeat(64)}`, diffIds: [] }],
}
const attestation: KbsAttestation = {
  initdataToml: 'version = "0.1.0"\n',
  nonce: 'bm9uY2U=',
  teePublicKey: key,
  primaryEvidence: tpmEvidenceJson(evidence),
  additionalEvidence: '',
}

test('canonical JSON has the digest that the reference implementation states', (t) => {
  const text = canonicalJson({ c: { d: 'e' }, b: 1, a: 'test' })
  t.is(
    createHash('sha384').update(text).digest('hex'),
    'e71ce8e70d814ba6639c3612ebee0ff1f76f650f8dbb5e47157e0f3f525cd22c4597480a186427c813ca941da78870c3',
  )
})

test('canonical JSON follows the sorting and number examples of RFC 8785', (t) => {
  t.is(
    canonicalJson({
      '\u20ac': 'Euro Sign',
      '\r': 'Carriage Return',
      '\u0080': 'Control',
      '1': 'One',
      '\ud83d\ude00': 'Smiley',
    }),
    '{"\\r":"Carriage Return","1":"One","\u0080":"Control","\u20ac":"Euro Sign","\ud83d\ude00":"Smiley"}',
  )
  t.is(
    canonicalJson([333333333.3333333, 1e30, 4.5, 2e-3, 0.000000000000000000000000001, -0]),
    '[333333333.3333333,1e+30,4.5,0.002,1e-27,0]',
  )
})

test('canonical JSON refuses what has no canonical form', (t) => {
  let deep: unknown[] = []
  for (let level = 0; level < 40; level++) deep = [deep]
  for (const value of [
    Number.NaN,
    Number.POSITIVE_INFINITY,
    '\ud800',
    { '\udc00': 1 },
    JSON.parse(JSON.stringify(deep)),
  ]) {
    t.throws(() => canonicalJson(value), { instanceOf: MalformedError, code: 'ERR_JSON_CANONICAL' })
  }
})

test('canonical JSON parses back to the same value', (t) => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 5 }), (value) => {
      const text = canonicalJson(JSON.parse(JSON.stringify(value)))
      t.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(value)))
    }),
  )
})

test('a Request, a Challenge and an Attestation survive encoding and parsing', (t) => {
  const request = {
    version: '0.4.0',
    tee: 'tpm',
    supportedHashAlgorithms: ['sha256', 'sha384'],
    tpm: { ekCertificate: new Uint8Array([1, 2]), akPublic: new Uint8Array([3]) },
  } as const
  t.deepEqual(parseKbsRequest(encodeKbsRequest(request)), request)
  const challenge = {
    nonce: 'AAAA',
    tpm: {
      credentialBlob: new Uint8Array([1]),
      encryptedSecret: new Uint8Array([2]),
      pcrSelection: { bank: 'sha256', pcrs: [0, 2, 4] },
    },
  } as const
  t.deepEqual(parseKbsChallenge(encodeKbsChallenge(challenge)), challenge)
  const parsed = parseKbsAttestation(encodeKbsAttestation(attestation), '0.4.0')
  t.deepEqual(parsed, attestation)
  t.deepEqual(parseTpmEvidence(parsed.primaryEvidence), evidence)
})

test('version 0.1 is refused with a reason, and so is a version nobody speaks', (t) => {
  for (const version of ['0.1.0', '0.1.1', '0.5.0', '']) {
    const text = JSON.stringify({ version, tee: 'snp', 'extra-params': '' })
    const error = t.throws(() => parseKbsRequest(text), { instanceOf: MalformedError, code: 'ERR_KBS_VERSION' })
    t.regex(error?.hint ?? '', /RSA1_5/)
  }
  for (const version of KBS_VERSIONS) {
    t.is(parseKbsRequest(JSON.stringify({ version, tee: 'snp', 'extra-params': '' })).version, version)
  }
})

test('an Attestation of 0.2.0 has its key and evidence at the top, and no nonce', (t) => {
  const parsed = parseKbsAttestation(JSON.stringify({ 'tee-pubkey': key, 'tee-evidence': { svn: '1' } }), '0.2.0')
  t.deepEqual(parsed, { nonce: '', teePublicKey: key, primaryEvidence: { svn: '1' }, additionalEvidence: '' })
})

test('unknown members of tee-pubkey are dropped, so they are not hashed', (t) => {
  const body = JSON.parse(encodeKbsAttestation(attestation))
  body['runtime-data']['tee-pubkey'].use = 'enc'
  t.deepEqual(parseKbsAttestation(JSON.stringify(body), '0.4.0').teePublicKey, key)
})

test('the report data of 0.4.0 covers additional evidence, nonce and key in this spelling', (t) => {
  const input = { version: '0.4.0', nonce: 'n', teePublicKey: key, additionalEvidence: '' } as const
  const text = `{"additional-evidence":"","nonce":"n","tee-pubkey":{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"${coordinate}","y":"${coordinate}"}}`
  t.is(new TextDecoder().decode(reportDataBytes(input)), text)
  t.is(Buffer.from(reportDataDigest(crypto, input)).toString('hex'), createHash('sha384').update(text).digest('hex'))
  t.notRegex(new TextDecoder().decode(reportDataBytes({ ...input, version: '0.2.0' })), /additional/)
})

const broken: [string, (body: Record<string, Record<string, Record<string, unknown>>>) => void][] = [
  ['a nonce that is no string', (body) => Object.assign(body['runtime-data'] ?? {}, { nonce: 7 })],
  [
    'RSA1_5',
    (body) =>
      Object.assign(body['runtime-data']?.['tee-pubkey'] ?? {}, { kty: 'RSA', alg: 'RSA1_5', n: 'AQAB', e: 'AQAB' }),
  ],
  [
    'a short RSA modulus',
    (body) =>
      Object.assign(body['runtime-data']?.['tee-pubkey'] ?? {}, {
        kty: 'RSA',
        alg: 'RSA-OAEP-256',
        n: 'AQAB',
        e: 'AQAB',
      }),
  ],
  [
    'a coordinate of 31 bytes',
    (body) => Object.assign(body['runtime-data']?.['tee-pubkey'] ?? {}, { x: Buffer.alloc(31).toString('base64url') }),
  ],
  ['initdata that is not TOML', (body) => Object.assign(body['init-data'] ?? {}, { format: 'json' })],
  [
    'additional evidence that is no text',
    (body) => Object.assign(body['tee-evidence'] ?? {}, { additional_evidence: {} }),
  ],
]
for (const [name, change] of broken) {
  test(`an Attestation with ${name} is refused`, (t) => {
    const body = JSON.parse(encodeKbsAttestation(attestation))
    change(body)
    t.throws(() => parseKbsAttestation(JSON.stringify(body), '0.4.0'), {
      instanceOf: MalformedError,
      code: 'ERR_KBS_MESSAGE',
    })
  })
}

test('bodies over the limit, text that is not JSON and arrays are refused', (t) => {
  for (const text of ['', '[]', 'null', '{', `"${'x'.repeat(3 * 1024 * 1024)}"`]) {
    t.throws(() => parseKbsChallenge(text), { instanceOf: MalformedError, code: 'ERR_KBS_MESSAGE' })
  }
})

test('a PCR selection must be non-empty, ascending and within 0 to 23', (t) => {
  for (const pcrs of [[], [1, 0], [2, 2], [24], [-1], [1.5], Array.from({ length: 25 }, (_, i) => i)]) {
    const text = JSON.stringify({
      nonce: 'n',
      'extra-params': {
        tpm: { 'credential-blob': '', 'encrypted-secret': '', 'pcr-selection': { bank: 'sha256', pcrs } },
      },
    })
    t.throws(() => parseKbsChallenge(text), { code: 'ERR_KBS_MESSAGE' }, JSON.stringify(pcrs))
  }
})

test('evidence with PCR values of another length, too few of them, or bad base64 is refused', (t) => {
  const json = () => JSON.parse(JSON.stringify(tpmEvidenceJson(evidence)))
  const short = json()
  short.tpm_quote.pcrs.pop()
  const long = json()
  long.tpm_quote.pcrs[0] = '00'.repeat(20)
  t.throws(() => parseTpmEvidence(short), { code: 'ERR_KBS_MESSAGE' })
  t.throws(() => parseTpmEvidence(long), { code: 'ERR_KBS_MESSAGE' })
  t.throws(() => parseTpmEvidence({ ...json(), event_log: 'AA' }), { code: 'ERR_BASE64' })
  t.throws(
    () => parseTpmEvidence({ ...json(), images: [{ container: 'x', manifest: 'latest', config: '', diff_ids: [] }] }),
    {
      code: 'ERR_KBS_MESSAGE',
    },
  )
})

test('whatever JSON arrives, parsing either succeeds or throws MalformedError', (t) => {
  const parsers = [parseKbsRequest, parseKbsChallenge, (text: string) => parseKbsAttestation(text, '0.4.0')]
  fc.assert(
    fc.property(fc.json(), fc.nat(2), (text, which) => {
      try {
        parsers[which]?.(text)
      } catch (error) {
        t.true(error instanceof MalformedError)
      }
    }),
  )
})

test('the messages that reference implementations use as examples are read or refused for a stated reason', (t) => {
  const path = new URL('../../vectors/kbs/_expected/kbs-types-messages.json', import.meta.url)
  const { messages } = JSON.parse(readFileSync(path, 'utf8'))
  const named = (name: string) =>
    JSON.stringify(messages.find((message: { test: string }) => message.test === name).json)
  t.is(parseKbsChallenge(named('parse_challenge')).nonce, '42')
  t.throws(() => parseKbsRequest(named('parse_request')), { code: 'ERR_KBS_VERSION' })
  t.throws(() => parseKbsAttestation(named('parse_attestation_rsa'), '0.3.0'), { code: 'ERR_KBS_MESSAGE' })
})

test('admitted images replay into PCR 15 in their order', (t) => {
  const [image] = evidence.images
  t.truthy(image)
  if (image === undefined) return
  const other = { ...image, container: 'db' }
  const hex = (images: readonly (typeof image)[]) => Buffer.from(replayAdmittedImages(crypto, images)).toString('hex')
  t.is(hex([]), '00'.repeat(32))
  const digest = createHash('sha256')
    .update(
      `{"config":"sha256:${'b'.repeat(64)}","container":"web","diff_ids":[],"manifest":"sha256:${'a'.repeat(64)}"}`,
    )
    .digest()
  t.is(hex([image]), createHash('sha256').update(Buffer.alloc(32)).update(digest).digest('hex'))
  t.not(hex([image, other]), hex([other, image]))
})
