/**
 * Verdicts per second for each form of signature, keys unwrapped per second for each form of wrapping, and megabytes
 * decrypted per second beside what OpenSSL's own `speed` says of the same algorithms in the same run.
 */
import { execFileSync } from 'node:child_process'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { openJwe, sealJwe } from '#image/encryption/jwe'
import { decryptLayer, encryptLayer } from '#image/encryption/layer-stream'
import { openKeyPacket, parseKeyPacket, sealKeyPacket } from '#image/encryption/packet'
import { signatureEngines } from '#image/node/engines'
import { nodeLayerCipher } from '#image/node/layer-cipher'
import { verifyArtifact } from '#image/node/verify-artifact'
import { evaluateSignaturePolicy } from '#image/policy/evaluate'
import { parseSignaturePolicy } from '#image/policy/parse'
import { parseSignatureBlob } from '#image/signature/blob'
import { nodeCrypto } from '#protocol/node/crypto'
import { parseDigest } from '#protocol/oci/digest'
import { parseReference } from '#protocol/oci/reference'
import { median } from './statistics.ts'

const SIGN = new URL('../test/vectors/image-sign/', import.meta.url).pathname
const FIXTURES = join(SIGN, 'containers-image/signature/fixtures')
const CONFORMANCE = join(SIGN, 'sigstore-conformance')
const PUBLIC_GOOD = 'sigstore-go/examples/trusted-root-public-good.json'
const TURN_MS = 200
const LAYER_BYTES = 64 * 1024 * 1024
const CHUNK_BYTES = 512 * 1024

export interface ImageTrustFigures {
  readonly rounds: number
  /** Per second, policy parsed once, keys read for each verdict as in the guest. */
  readonly verdicts: Readonly<Record<string, number>>
  readonly unwraps: Readonly<Record<string, number>>
  /** ECDSA P-256 verifications per second of `openssl speed`. */
  readonly opensslEcdsa: number
  /** 10⁶ bytes per second, on one core. */
  readonly decrypt: {
    readonly mbPerSecond: number
    /** AES-256-CTR, HMAC-SHA256 and SHA-256 one after the other, from the rate of each. */
    readonly opensslMbPerSecond: number
  }
}

export async function benchImageTrust(rounds: number, say: (line: string) => void): Promise<ImageTrustFigures> {
  const verdicts = await rates(verdictCases(), rounds, say)
  const unwraps = await rates(await unwrapCases(), rounds, say)
  say('decryption')
  const decrypted: number[] = []
  for (let round = 0; round < rounds; round++) decrypted.push(await decryptRate())
  const [ctr, sha256] = [opensslRate('aes-256-ctr'), opensslRate('sha256')]
  // HMAC hashes the ciphertext once, and the digest of the manifest hashes it a second time.
  const opensslMbPerSecond = 1 / (1 / ctr + 2 / sha256)
  const decrypt = { mbPerSecond: median(decrypted), opensslMbPerSecond }
  return { rounds, verdicts, unwraps, opensslEcdsa: opensslEcdsa(), decrypt }
}

export function printImageTrust({ rounds, verdicts, unwraps, opensslEcdsa: ecdsa, decrypt }: ImageTrustFigures): void {
  console.log(
    `image trust (median of ${rounds}), verdicts per second; OpenSSL verifies ${ecdsa.toFixed(0)} ECDSA P-256/s`,
  )
  for (const [name, rate] of Object.entries(verdicts)) console.log(`  ${name}: ${rate.toFixed(0)}/s`)
  console.log('keys unwrapped per second')
  for (const [name, rate] of Object.entries(unwraps)) console.log(`  ${name}: ${rate.toFixed(0)}/s`)
  const { mbPerSecond, opensslMbPerSecond } = decrypt
  console.log(
    `layer decryption on one core: ${mbPerSecond.toFixed(0)} MB/s; OpenSSL's own rate for the same work ${opensslMbPerSecond.toFixed(0)} MB/s`,
  )
}

type Work = () => unknown

async function rates(
  cases: Readonly<Record<string, Work>>,
  rounds: number,
  say: (line: string) => void,
): Promise<Record<string, number>> {
  const figures: Record<string, number> = {}
  for (const [name, work] of Object.entries(cases)) {
    say(name)
    await work()
    const turns: number[] = []
    for (let round = 0; round < rounds; round++) {
      const start = performance.now()
      let count = 0
      for (; performance.now() - start < TURN_MS; count++) await work()
      turns.push((1000 * count) / (performance.now() - start))
    }
    figures[name] = median(turns)
  }
  return figures
}

function verdictCases(): Readonly<Record<string, Work>> {
  const read = (name: string): Buffer => readFileSync(join(FIXTURES, name))
  const keyData = (name: string): string => read(name).toString('base64')
  const judge = (requirement: object, reference: string, signature: Uint8Array): Work => {
    const policy = parseSignaturePolicy(JSON.stringify({ default: [requirement] }))
    const found = parseSignatureBlob(signature, 'signature-1')
    const text = found?.kind === 'cosign' ? found.payload : Buffer.from('')
    const digest = /sha256:[0-9a-f]{64}/.exec(Buffer.from(text).toString())?.[0] ?? GPG_DIGEST
    return () =>
      evaluateSignaturePolicy({
        policy,
        reference: parseReference(reference),
        digests: [parseDigest(digest, 'digest')],
        signaturesOf: (_, kind) => Promise.resolve(found?.kind === kind ? [found] : []),
        resolveKey: () => Promise.reject(new Error('no key by path')),
        crypto: nodeCrypto,
        engines: signatureEngines,
        now: new Date('2025-09-01T00:00:00Z'),
      })
  }
  const repository = { signedIdentity: { type: 'matchRepository' } }
  const bundle = (name: string, root: string): Work => {
    const trustedRoot = readFileSync(
      root === '' ? join(SIGN, PUBLIC_GOOD) : join(CONFORMANCE, 'bundle-verify', name, root),
    )
    const json = readFileSync(join(CONFORMANCE, 'bundle-verify', name, 'bundle.sigstore.json'))
    const artifact = readFileSync(join(CONFORMANCE, 'a.txt'))
    return () => verifyArtifact({ artifact, bundle: json, trustedRoot, key: undefined })
  }
  return {
    'sigstoreSigned, key': judge(
      { type: 'sigstoreSigned', keyData: keyData('cosign.pub'), ...repository },
      '192.168.64.2:5000/cosign-signed-single-sample:1',
      read('dir-img-cosign-valid/signature-1'),
    ),
    'sigstoreSigned, key and log': judge(
      {
        type: 'sigstoreSigned',
        keyData: keyData('cosign2.pub'),
        rekorPublicKeyData: keyData('rekor.pub'),
        ...repository,
      },
      '192.168.64.2:5000/cosign-signed/key-1:1',
      read('dir-img-cosign-key-rekor-valid/signature-1'),
    ),
    'signedBy, OpenPGP RSA': judge(
      { type: 'signedBy', keyType: 'GPGKeys', keyData: keyData('public-key.gpg'), ...repository },
      'testing/manifest:latest',
      read('dir-img-valid/signature-1'),
    ),
    'bundle 0.3, keyless, Rekor 1': bundle('happy-path-v0.3', ''),
    'bundle 0.3, keyless, Rekor 2 and time stamp': bundle('rekor2-checkpoint-multiple-cosigs', 'trusted_root.json'),
  }
}

const GPG_DIGEST = 'sha256:20bf21ed457b390829cdbeec8795a7bea1626991fda603e0d01b4e7f60427e55'

async function unwrapCases(): Promise<Readonly<Record<string, Work>>> {
  const options = randomBytes(200)
  const key = randomBytes(32)
  const keyId = 'kbs:///default/image-key/bench'
  const packet = sealKeyPacket(nodeLayerCipher, { keyId, key, iv: randomBytes(12), options })
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const forRsa = await sealJwe(options, [{ key: rsa.publicKey, algorithm: 'RSA-OAEP' }])
  const forEc = await sealJwe(options, [{ key: ec.publicKey, algorithm: 'ECDH-ES+A256KW' }])
  return {
    'packet of a key provider': () => openKeyPacket(nodeLayerCipher, parseKeyPacket(packet, 'packet'), key, 'packet'),
    'JWE, RSA-OAEP 2048': () => openJwe(forRsa, [rsa.privateKey], 'jwe'),
    'JWE, ECDH-ES P-256': () => openJwe(forEc, [ec.privateKey], 'jwe'),
  }
}

async function decryptRate(): Promise<number> {
  const engines = { cipher: nodeLayerCipher, crypto: nodeCrypto }
  const [key, nonce] = [randomBytes(32), randomBytes(16)]
  const stream = encryptLayer(chunksOf(Buffer.alloc(LAYER_BYTES, 7)), { key, nonce }, engines)
  const parts: Uint8Array[] = []
  for await (const chunk of stream.body) parts.push(chunk)
  const { hmac, digest } = stream.finish()
  const start = performance.now()
  const secret = { key, nonce, hmac, digest: undefined }
  let bytes = 0
  for await (const chunk of decryptLayer(iterate(parts), { secret, digest, what: 'layer' }, engines))
    bytes += chunk.length
  return bytes / 1000 / (performance.now() - start)
}

async function* chunksOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) yield bytes.subarray(at, at + CHUNK_BYTES)
}

async function* iterate(parts: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* parts
}

/** 10⁶ bytes per second for blocks of 16 KiB, by OpenSSL's own measurement. */
function opensslRate(algorithm: string): number {
  const args = ['speed', '-mr', '-seconds', '1', '-bytes', '16384', '-evp', algorithm]
  const output = execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  const rate = /^\+F:\d+:[^:]+:([0-9.]+)/m.exec(output)?.[1]
  return Number(rate) / 1e6
}

function opensslEcdsa(): number {
  const args = ['speed', '-mr', '-seconds', '1', 'ecdsap256']
  const output = execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  const perSecond = /^\+F4:\d+:\d+:[0-9.e-]+:([0-9.e-]+)/m.exec(output)?.[1]
  return Number(perSecond)
}
