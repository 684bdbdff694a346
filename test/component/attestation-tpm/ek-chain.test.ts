/** Which certificates make an endorsement key: chains put together here, each wrong in one thing. */
import { generateKeyPairSync } from 'node:crypto'
import test from 'ava'
import forge from 'node-forge'
import { verifyEkChain } from '#attestation/tpm/verify/ek-chain'
import { EkChainCache } from '#attestation/tpm/verify/ek-chain-cache'

const AT = new Date('2026-06-01T00:00:00Z')
const EK_USAGE = '2.23.133.8.1'

interface Pair {
  readonly publicKey: forge.pki.rsa.PublicKey
  readonly privateKey: forge.pki.rsa.PrivateKey
}

function pair(): Pair {
  const keys = generateKeyPairSync('rsa', { modulusLength: 2048 })
  return {
    publicKey: forge.pki.publicKeyFromPem(keys.publicKey.export({ type: 'spki', format: 'pem' }).toString()),
    privateKey: forge.pki.privateKeyFromPem(keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()),
  }
}

const KEYS = { root: pair(), intermediate: pair(), leaf: pair() }
type Name = keyof typeof KEYS

interface Wanted {
  readonly subject: Name
  readonly issuer: Name
  /** Whose key signs; the issuer's unless it is forged. */
  readonly signer?: Name
  readonly extensions: readonly object[]
  readonly digest?: forge.md.MessageDigest
  readonly until?: string
}

function certificate({ subject, issuer, signer, extensions, digest, until }: Wanted): string {
  const made = forge.pki.createCertificate()
  made.publicKey = KEYS[subject].publicKey
  made.serialNumber = '01'
  made.validity.notBefore = new Date('2026-01-01T00:00:00Z')
  made.validity.notAfter = new Date(until ?? '2030-01-01T00:00:00Z')
  made.setSubject([{ name: 'commonName', value: subject }])
  made.setIssuer([{ name: 'commonName', value: issuer }])
  made.setExtensions([...extensions])
  made.sign(KEYS[signer ?? issuer].privateKey, digest ?? forge.md.sha256.create())
  return forge.pki.certificateToPem(made)
}

const CA = [
  { name: 'basicConstraints', cA: true, critical: true },
  { name: 'keyUsage', keyCertSign: true, critical: true },
]
const EK = [
  { name: 'basicConstraints', cA: false, critical: true },
  { name: 'keyUsage', keyEncipherment: true, critical: true },
  { name: 'extKeyUsage', [EK_USAGE]: true },
]

const root = (extensions: readonly object[] = CA, change: Partial<Wanted> = {}) =>
  certificate({ subject: 'root', issuer: 'root', extensions, ...change })
const intermediate = (extensions: readonly object[] = CA) =>
  certificate({ subject: 'intermediate', issuer: 'root', extensions })
const leaf = (extensions: readonly object[] = EK, change: Partial<Wanted> = {}) =>
  certificate({ subject: 'leaf', issuer: 'root', extensions, ...change })

function der(pem: string): Uint8Array {
  return new Uint8Array(Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ''), 'base64'))
}

function verify(chain: { leaf: string; roots: string[]; intermediates?: string[] }) {
  const certificate = der(chain.leaf)
  return verifyEkChain({ certificate, roots: chain.roots, intermediates: chain.intermediates ?? [], at: AT })
}

test('an EK certificate that a pinned CA issued is accepted, through an intermediate too', (t) => {
  t.is(verify({ leaf: leaf(), roots: [root()] }).template.kind, 'rsa-2048')
  const below = leaf(EK, { issuer: 'intermediate' })
  t.is(verify({ leaf: below, roots: [root()], intermediates: [intermediate()] }).template.kind, 'rsa-2048')
})

test('a certificate of the same CA for something else is not that of an endorsement key', (t) => {
  const [constraints, usage, extended] = EK
  const wrong: Record<string, readonly object[]> = {
    'a server': [constraints ?? {}, usage ?? {}, { name: 'extKeyUsage', serverAuth: true }],
    'no purpose at all': [constraints ?? {}, usage ?? {}],
    'a signing key': [constraints ?? {}, { name: 'keyUsage', digitalSignature: true }, extended ?? {}],
    'no usage': [constraints ?? {}, extended ?? {}],
    'a CA': [...CA, extended ?? {}],
    'an unknown critical extension': [...EK, { id: '1.2.3.4', critical: true, value: '\x05\x00' }],
  }
  for (const [what, extensions] of Object.entries(wrong)) {
    t.throws(() => verify({ leaf: leaf(extensions), roots: [root()] }), { code: 'ERR_EK_CERTIFICATE' }, what)
  }
})

test('whoever issues must be a CA that may sign certificates, and so many below it', (t) => {
  const issuers: Record<string, readonly object[]> = {
    'not a CA': [
      { name: 'basicConstraints', cA: false },
      { name: 'keyUsage', keyCertSign: true },
    ],
    'no constraints': [{ name: 'keyUsage', keyCertSign: true }],
    'not for certificates': [
      { name: 'basicConstraints', cA: true },
      { name: 'keyUsage', digitalSignature: true },
    ],
    'an unknown critical extension': [...CA, { id: '1.2.3.4', critical: true, value: '\x05\x00' }],
  }
  for (const [what, extensions] of Object.entries(issuers)) {
    t.throws(() => verify({ leaf: leaf(), roots: [root(extensions)] }), { code: 'ERR_EK_UNTRUSTED' }, what)
    const below = leaf(EK, { issuer: 'intermediate' })
    const through = { leaf: below, roots: [root()], intermediates: [intermediate(extensions)] }
    t.throws(() => verify(through), { code: 'ERR_EK_UNTRUSTED' }, `${what}, in between`)
  }
  const shallow = root([{ name: 'basicConstraints', cA: true, pathLenConstraint: 0 }, CA[1] ?? {}])
  t.notThrows(() => verify({ leaf: leaf(), roots: [shallow] }))
  const deep = { leaf: leaf(EK, { issuer: 'intermediate' }), roots: [shallow], intermediates: [intermediate()] }
  t.throws(() => verify(deep), { code: 'ERR_EK_UNTRUSTED' })
})

test('a certificate signed over SHA-1, by another key, or of an expired CA is refused', (t) => {
  const weak = leaf(EK, { digest: forge.md.sha1.create() })
  t.throws(() => verify({ leaf: weak, roots: [root()] }), { code: 'ERR_EK_UNTRUSTED' })
  const own = certificate({ subject: 'leaf', issuer: 'leaf', extensions: EK })
  const forged = leaf(EK, { signer: 'leaf' })
  for (const wrong of [own, forged]) {
    t.throws(() => verify({ leaf: wrong, roots: [root()] }), { code: 'ERR_EK_UNTRUSTED' })
  }
  t.throws(() => verify({ leaf: leaf(), roots: [root(CA, { until: '2026-02-01T00:00:00Z' })] }), {
    code: 'ERR_EK_EXPIRED',
  })
})

test('an endorsement key that was verified is known again, for the same roots and while its path is valid only', (t) => {
  const cache = new EkChainCache(2)
  const below = { certificate: der(leaf(EK, { issuer: 'intermediate', until: '2027-01-01T00:00:00Z' })), at: AT }
  const trusted = { ...below, roots: [root()], intermediates: [intermediate()] }
  const first = cache.verify(trusted)
  t.is(cache.verify(trusted), first)
  t.is(cache.verify({ ...trusted, at: new Date('2027-01-01T00:00:00Z') }), first)
  for (const year of ['2025', '2028']) {
    const at = new Date(`${year}-06-01T00:00:00Z`)
    t.throws(() => cache.verify({ ...trusted, at }), { code: 'ERR_EK_EXPIRED' }, year)
  }
  for (const other of [{ roots: [] }, { roots: [intermediate([])] }, { intermediates: [] }]) {
    t.throws(() => cache.verify({ ...trusted, ...other }), { code: 'ERR_EK_UNTRUSTED' })
  }
  const changed = Uint8Array.from(trusted.certificate, (byte, index) => (index === 200 ? byte ^ 1 : byte))
  t.throws(() => cache.verify({ ...trusted, certificate: changed }))
  t.is(cache.size, 0, 'refusals are not kept, and what they were about is forgotten')
  for (const serial of ['a', 'b', 'c']) {
    cache.verify({
      ...trusted,
      roots: [root(), root(CA, { until: `203${serial.charCodeAt(0) - 96}-01-01T00:00:00Z` })],
    })
  }
  t.is(cache.size, 2)
})
