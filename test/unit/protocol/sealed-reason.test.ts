import test from 'ava'
import fc from 'fast-check'
import { CompactEncrypt, calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK } from 'jose'
import { CaissonError, MalformedError } from '#protocol/errors'
import { encodeInitdata } from '#protocol/initdata'
import { type ExplainedReason, MAX_SEALED_REASON_BYTES, openSealedReason, sealReason } from '#protocol/sealed-reason'
import { parseTenantIdentity, parseTenantKey, type TenantIdentity } from '#protocol/tenant-key'

const REASON: ExplainedReason = {
  correlationId: '0123456789abcdef',
  at: '2026-01-02T03:04:05.000Z',
  code: 'ERR_POLICY_DENIED',
  subject: 'CreateContainer web',
  message: 'args are not allowed',
  hint: 'change line 7',
  denial: { field: 'containers[0].args', allowed: 'nginx -v', asked: '/bin/sh' },
}

async function makeIdentity(): Promise<TenantIdentity> {
  const { privateKey } = await generateKeyPair('ECDH-ES+A256KW', { crv: 'P-256', extractable: true })
  const { kty, crv, x, y, d } = await exportJWK(privateKey)
  return parseTenantIdentity(JSON.stringify({ kty, crv, alg: 'ECDH-ES+A256KW', x, y, d }))
}

const publicOf = ({ kty, crv, alg, x, y }: TenantIdentity): Record<string, string> => ({ kty, crv, alg, x, y })

function codeOf(action: () => unknown): string {
  try {
    action()
  } catch (error) {
    if (error instanceof CaissonError) return error.code
    throw error
  }
  return 'accepted'
}

test('the tenant reads exactly the reason that was sealed to its key', async (t) => {
  const identity = await makeIdentity()
  t.deepEqual(await openSealedReason(identity, await sealReason(identity, REASON)), REASON)
  const plain = { ...REASON, hint: undefined, denial: undefined }
  t.deepEqual(await openSealedReason(identity, await sealReason(identity, plain)), plain)
})

test('sealed bytes are of one length whatever the reason, and hold none of its words', async (t) => {
  const identity = await makeIdentity()
  const long = 'é\u0000'.repeat(3000)
  const reasons = [
    REASON,
    { ...REASON, hint: undefined, denial: undefined },
    { ...REASON, message: long, subject: long },
  ]
  const lengths = new Set<number>()
  for (const reason of reasons) {
    const sealed = await sealReason(identity, reason)
    lengths.add(sealed.byteLength)
    const text = new TextDecoder().decode(sealed)
    const readable = text.split('.').map((part) => Buffer.from(part, 'base64url').toString('latin1'))
    for (const word of [
      'args are not',
      'nginx',
      '/bin/sh',
      'containers',
      'ERR_',
      'CreateContainer',
      '0123456789abcdef',
    ]) {
      for (const view of [text, ...readable]) t.false(view.includes(word), word)
    }
  }
  t.is(lengths.size, 1)
  t.true([...lengths].every((length) => length <= MAX_SEALED_REASON_BYTES))
})

test('texts that do not fit are cut, and what is left is readable', async (t) => {
  const identity = await makeIdentity()
  const word = '\u{1F4A5}'.repeat(5000)
  const reason = { ...REASON, message: word, denial: { field: word, allowed: word, asked: word } }
  const opened = await openSealedReason(identity, await sealReason(identity, reason))
  t.is(opened.code, REASON.code)
  t.regex(opened.denial?.asked ?? '', /^\u{1F4A5}.*…$/u)
})

test('another key does not open it', async (t) => {
  const sealed = await sealReason(await makeIdentity(), REASON)
  const error = await t.throwsAsync(openSealedReason(await makeIdentity(), sealed), { instanceOf: CaissonError })
  t.is(error?.code, 'ERR_SEALED_REASON_KEY')
})

test('what was cut or changed anywhere is refused', async (t) => {
  const identity = await makeIdentity()
  const sealed = await sealReason(identity, REASON)
  const refused = async (bytes: Uint8Array): Promise<boolean> => {
    try {
      await openSealedReason(identity, bytes)
    } catch (error) {
      if (error instanceof CaissonError && /^ERR_SEALED_REASON(_KEY)?$/.test(error.code)) return true
      throw error
    }
    return false
  }
  await fc.assert(
    fc.asyncProperty(fc.nat(sealed.byteLength - 1), async (at) => refused(sealed.subarray(0, at))),
    { numRuns: 60 },
  )
  await fc.assert(
    fc.asyncProperty(fc.nat(sealed.byteLength - 2), async (at) => {
      const changed = Uint8Array.from(sealed)
      changed[at] = changed[at] === 0x41 ? 0x42 : 0x41
      return changed[at] === sealed[at] || refused(changed)
    }),
    { numRuns: 60 },
  )
  t.true(await refused(new Uint8Array(MAX_SEALED_REASON_BYTES + 1)))
  t.true(await refused(new Uint8Array()))
})

test('a tenant key is exactly one P-256 point for one algorithm, public in initdata', async (t) => {
  const identity = await makeIdentity()
  const key = publicOf(identity)
  const text = JSON.stringify(key)
  t.deepEqual({ ...parseTenantKey(JSON.stringify(key, null, 2)) }, key)
  const { x: _, ...withoutX } = key
  for (const wrong of [
    JSON.stringify(identity),
    JSON.stringify({ ...key, kid: 'x' }),
    JSON.stringify({ ...key, alg: 'ECDH-ES' }),
    JSON.stringify({ ...key, crv: 'P-521' }),
    JSON.stringify({ ...key, kty: 'RSA' }),
    JSON.stringify({ ...key, x: key.y }),
    JSON.stringify({ ...key, x: `${key.x}AA` }),
    JSON.stringify({ ...key, x: `${key.x}=` }),
    JSON.stringify({ ...key, x: 1 }),
    JSON.stringify(withoutX),
    `{"kty":"EC",${text.slice(1)}`,
    text.replace('"EC"', '"\\u0045C"'),
    '[]',
    'null',
    '',
    ' '.repeat(2000),
  ]) {
    t.is(
      codeOf(() => parseTenantKey(wrong)),
      'ERR_TENANT_KEY',
      wrong,
    )
    const initdata = {
      verifier: undefined,
      registryCaPem: [],
      imagePolicyResource: undefined,
      registryCredentialsResource: undefined,
      policyYaml: 'kind: WorkloadPolicy\n',
      tenantKeyJwk: wrong,
    }
    const error = t.throws(() => encodeInitdata(initdata), { instanceOf: MalformedError })
    t.is(error?.code, 'ERR_INITDATA_MALFORMED')
  }
  for (let length = 0; length < text.length; length++) {
    t.is(
      codeOf(() => parseTenantKey(text.slice(0, length))),
      'ERR_TENANT_KEY',
    )
  }
  t.is(
    codeOf(() => parseTenantIdentity(text)),
    'ERR_TENANT_KEY',
  )
})

test('a damaged private key is not quoted in the error', async (t) => {
  const identity = await makeIdentity()
  const error = t.throws(() => parseTenantIdentity(`${JSON.stringify(identity)}}`), { instanceOf: MalformedError })
  t.false(JSON.stringify([error?.message, error?.cause, error?.stack]).includes(identity.d.slice(0, 8)))
})

test('whatever is put into the text of a key, it is refused, or is the same key', async (t) => {
  const identity = await makeIdentity()
  for (const [text, parse] of [
    [JSON.stringify(publicOf(identity)), parseTenantKey],
    [JSON.stringify(identity), parseTenantIdentity],
  ] as const) {
    const whole = { ...parse(text) }
    fc.assert(
      fc.property(fc.nat(text.length), fc.string({ maxLength: 4, unit: 'grapheme' }), (at, insert) => {
        const changed = `${text.slice(0, at)}${insert}${text.slice(at)}`
        if (codeOf(() => parse(changed)) === 'accepted') t.deepEqual({ ...parse(changed) }, whole)
      }),
    )
    fc.assert(fc.property(fc.json(), (json) => codeOf(() => parse(json)) === 'ERR_TENANT_KEY'))
  }
})

test('what somebody else sealed is read as strictly as if it came from the host', async (t) => {
  const identity = await makeIdentity()
  const key = publicOf(identity)
  const kid = await calculateJwkThumbprint(key)
  const sealed = async (text: string): Promise<Uint8Array> => {
    const header = { alg: 'ECDH-ES+A256KW', enc: 'A256GCM', typ: 'caisson-reason', kid }
    const jwe = await new CompactEncrypt(Buffer.from(text))
      .setProtectedHeader(header)
      .encrypt(await importJWK(key, header.alg))
    return Buffer.from(jwe)
  }
  t.deepEqual(await openSealedReason(identity, await sealed(JSON.stringify(REASON))), REASON)
  const { message: _message, ...incomplete } = REASON
  for (const text of [
    '',
    '[]',
    '{',
    JSON.stringify(incomplete),
    JSON.stringify({ ...REASON, denial: 'x' }),
    ' '.repeat(5000),
  ]) {
    const error = await t.throwsAsync(openSealedReason(identity, await sealed(text)), { instanceOf: MalformedError })
    t.is(error?.code, 'ERR_SEALED_REASON', text)
  }
})
