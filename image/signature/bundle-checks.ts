/**
 * What @sigstore/verify does not look at: that the log's entry names the signer, that an inclusion proof agrees with the
 * checkpoint it leads to, that a certificate is for signing code, and that a message signature is about the artifact.
 */
import type { Bundle } from '@sigstore/bundle'
import type { CryptoProvider } from '#protocol/crypto-provider'
import { equalBytes, fromBase64 } from '#protocol/encoding'
import { MalformedError, UnverifiedError } from '#protocol/errors'
import { asArray, asObject, asString } from '../json/fields.ts'
import { type JsonObject, type JsonValue, parseStrictJson } from '../json/strict-json.ts'
import type { Certificate } from './x509/certificate.ts'
import { parsePem } from './x509/pem.ts'

interface CheckOptions {
  readonly crypto: CryptoProvider
  readonly what: string
}

type LogEntry = Pick<
  Bundle['verificationMaterial']['tlogEntries'][number],
  'kindVersion' | 'canonicalizedBody' | 'inclusionProof'
>

const CODE_SIGNING = '1.3.6.1.5.5.7.3.3'
/** HashAlgorithm of sigstore's protobuf messages. */
const HASHES: ReadonlyMap<number, 'sha256' | 'sha384' | 'sha512'> = new Map([
  [1, 'sha256'],
  [2, 'sha384'],
  [3, 'sha512'],
])

/** Throws `UnverifiedError` ERR_IMAGE_BUNDLE. */
export function checkCertificate(leaf: Certificate, { what }: CheckOptions): void {
  if (leaf.extendedKeyUsage?.includes(CODE_SIGNING) !== true)
    throw refused(what, 'its certificate is not for signing code')
  if (leaf.basicConstraints?.ca === true) throw refused(what, 'its certificate is that of an authority')
}

/** A message signature says itself what it is over. Throws `UnverifiedError` ERR_IMAGE_BUNDLE. */
export function checkMessageDigest({ content }: Bundle, artifact: Uint8Array, { crypto, what }: CheckOptions): void {
  if (content.$case !== 'messageSignature') return
  const { messageDigest } = content.messageSignature
  const algorithm = HASHES.get(messageDigest.algorithm)
  if (algorithm === undefined) throw refused(what, 'its message digest is of an algorithm that is not accepted')
  const hash = crypto.createHash(algorithm)
  hash.update(artifact)
  if (!equalBytes(hash.digest(), messageDigest.digest)) throw refused(what, 'its message digest is of another artifact')
}

/**
 * @param signer DER of the certificate or public key that signed
 *
 * Throws `UnverifiedError` ERR_IMAGE_BUNDLE, or `MalformedError` for an entry out of form.
 */
export function checkLogEntries(bundle: Bundle, signer: Uint8Array, { what }: CheckOptions): void {
  const entries: readonly LogEntry[] = bundle.verificationMaterial.tlogEntries
  for (const [index, entry] of entries.entries()) {
    const place = `log entry ${index + 1} of ${what}`
    if (!equalBytes(signerOf(entry, place), signer)) throw refused(place, 'it names another signer')
    checkCheckpoint(entry, place)
  }
}

/** The proof's root and size are the signed checkpoint's, not only a way to a root of its own. */
function checkCheckpoint({ inclusionProof }: LogEntry, place: string): void {
  if (inclusionProof === undefined) return
  const [, size, root = ''] = inclusionProof.checkpoint?.envelope.split('\n') ?? []
  if (size !== inclusionProof.treeSize) throw refused(place, 'its proof is for another tree size than its checkpoint')
  if (!equalBytes(fromBase64(root, place), inclusionProof.rootHash)) {
    throw refused(place, 'its proof leads to another root than its checkpoint')
  }
}

/** DER of the certificate or public key in the entry's body; the shapes are those of Rekor 1 and 2. */
function signerOf({ kindVersion, canonicalizedBody }: LogEntry, place: string): Uint8Array {
  const spec = asObject(asObject(parseStrictJson(canonicalizedBody, place), place).spec, place)
  const kind = `${kindVersion.kind} ${kindVersion.version}`
  switch (kind) {
    case 'hashedrekord 0.0.1':
      return pemIn(at(spec, place, 'signature', 'publicKey').content, place)
    case 'dsse 0.0.1':
      return pemIn(single(spec.signatures, place).verifier, place)
    case 'intoto 0.0.2':
      return pemIn(single(at(spec, place, 'content', 'envelope').signatures, place).publicKey, place)
    case 'hashedrekord 0.0.2':
      return verifierIn(at(spec, place, 'hashedRekordV002', 'signature', 'verifier'), place)
    case 'dsse 0.0.2':
      return verifierIn(at(single(at(spec, place, 'dsseV002').signatures, place), place, 'verifier'), place)
    default:
      throw new MalformedError(
        'ERR_IMAGE_SIGNATURE_FORMAT',
        `${place}: is of kind ${JSON.stringify(kind.slice(0, 100))}`,
      )
  }
}

function verifierIn({ publicKey, x509Certificate }: JsonObject, place: string): Uint8Array {
  const { rawBytes } = asObject(publicKey ?? x509Certificate, `${place}: verifier`)
  return fromBase64(asString(rawBytes, `${place}: verifier`), `${place}: verifier`)
}

function pemIn(value: JsonValue | undefined, place: string): Uint8Array {
  const [block, ...more] = parsePem(fromBase64(asString(value, `${place}: signer`), `${place}: signer`), place)
  if (block === undefined || more.length > 0) throw refused(place, 'it names several signers')
  return block.der
}

function single(value: JsonValue | undefined, place: string): JsonObject {
  const [item, ...more] = asArray(value, `${place}: signatures`, 1)
  if (more.length > 0) throw refused(place, 'it holds several signatures')
  return asObject(item, `${place}: signature`)
}

function at(root: JsonObject, place: string, ...names: readonly string[]): JsonObject {
  return names.reduce<JsonObject>((value, name) => asObject(value[name], `${place}: ${name}`), root)
}

function refused(what: string, why: string): UnverifiedError {
  return new UnverifiedError('ERR_IMAGE_BUNDLE', `${what}: the bundle does not hold: ${why}`, {
    hint: 'Sign the image again, by a key or a service that the policy names.',
  })
}
